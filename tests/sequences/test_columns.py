from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.sequences import Columns, data_hash
from oracle.sequences.conversion import to_sequences
from oracle.sequences.records import Record
from oracle.types import Sequence


def build(*rows: Mapping[str, object], cells: bool = False, **columns: Any) -> list[Sequence]:
    records = [Record(where=f"row {n}", fields=fields, cells=cells) for n, fields in enumerate(rows)]
    return to_sequences(records, Columns(**columns))


SEED = {
    "instruction": "Translate.",
    "instances": [{"input": "Hallo", "output": "Hello"}, {"input": "Welt", "output": "World"}],
    "answers": {"text": ["Hello", 5, 2.5, True, None, " "]},
    "instances.1.output": "the literal key",
    "note": None,
}


def test_defaults_take_what_is_there() -> None:
    assert build({"prompt": "p"}, {"prompt": "q", "references": ["a", "b"], "reference": "c", "id": 7}) == [
        Sequence(id="00000", prompt="p"),
        Sequence(id="7", prompt="q", references=("a", "b")),
    ]
    assert build({"prompt": "p", "reference": "c", "task": "t"}) == [
        Sequence(id="00000", prompt="p", references=("c",), task="t")
    ]


@pytest.mark.parametrize(
    ("path", "references"),
    [
        ("instances.0.output", ("Hello",)),
        ("instances.1.input", ("Welt",)),
        ("instances.1.output", ("the literal key",)),
        ("answers.text", ("Hello", "5", "2.5", "true")),
        ("note", ()),
    ],
)
def test_paths_lead_into_nested_values(path: str, references: tuple[str, ...]) -> None:
    assert build(SEED, prompt="instruction", references=(path,))[0].references == references


def test_several_reference_columns_are_joined_in_order() -> None:
    columns = ("answers.text", "instances.0.output")
    assert build(SEED, prompt="instruction", references=columns)[0].references[-2:] == ("true", "Hello")


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{instruction}\n\n{instances.0.input}", "Translate.\n\nHallo"),
        ("{instruction}\n\n{note} \n", "Translate."),
        ("{{{instruction}}} {{x}}", "{Translate.} {x}"),
        ("  {answers.text.1}", "  5"),
    ],
)
def test_templates_join_columns(template: str, prompt: str) -> None:
    assert build(SEED, template=template)[0].prompt == prompt


def test_what_a_template_inserts_is_not_read_as_a_template() -> None:
    assert build({"a": "{b} }}", "b": "no"}, template="{a}")[0].prompt == "{b} }}"


@pytest.mark.parametrize("template", ["{a", "a}", "{{a}}", "none", "{}", "{a}}"])
def test_a_bad_template_is_refused_at_once(template: str) -> None:
    with pytest.raises(InputError, match="brace"):
        Columns(template=template)


def test_references_as_one_text_are_refused() -> None:
    with pytest.raises(InputError, match="tuple of columns"):
        Columns(references="output")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "index"),
    [(1, 1), (2.0, 2), ("B", 1), ("2", 2), ("blue", 2), (" red ", 0), (None, None)],
)
def test_an_answer_is_an_index_a_letter_or_a_text(answer: object, index: int | None) -> None:
    row = {"prompt": "p", "choices": ["red", "green", "blue"], "answer": answer}
    assert build(row)[0].answer == index


@pytest.mark.parametrize("answer", [3, -1, "D", "3", "purple", 0.5, True, ["red"], float("inf"), "d"])
def test_an_answer_beyond_the_choices_is_an_error(answer: object) -> None:
    with pytest.raises(InputError, match=r"row 0: answer 'answer' must be one of the 3 choices"):
        build({"prompt": "p", "choices": ["red", "green", "blue"], "answer": answer})


def test_an_answer_without_choices_counts_only_if_named() -> None:
    row = {"prompt": "p", "answer": "free text"}
    assert build(row)[0].answer is None
    with pytest.raises(InputError, match="row 0: answer 'answer' needs choices"):
        build(row, answer="answer")


def test_choices_must_be_a_list() -> None:
    with pytest.raises(InputError, match=r"row 0: choices 'choices' must be a list of texts, not str"):
        build({"prompt": "p", "choices": "red"})


def test_lists_in_cells_are_json_text() -> None:
    row = {"prompt": "[1, 2]", "references": '["a", 2]', "choices": '["x", "y"]', "answer": "B"}
    expected = Sequence(id="00000", prompt="[1, 2]", references=("a", "2"), choices=("x", "y"), answer=1)
    assert build(row, cells=True) == [expected]


def test_a_cell_that_only_looks_like_a_list_is_text() -> None:
    row = {"prompt": "p", "references": "[sic] he said", "choices": "", "answer": ""}
    assert build(row, cells=True) == [Sequence(id="00000", prompt="p", references=("[sic] he said",))]


@pytest.mark.parametrize("named", ["prompt", "template", "references", "choices", "answer", "id", "task"])
def test_a_named_column_that_is_not_there_lists_the_columns(named: str) -> None:
    value: Any = {"references": ("instances.0.outptu",), "template": "{instances.0.outptu}"}.get(
        named, "instances.0.outptu"
    )
    columns: dict[str, Any] = {"prompt": "instruction", named: value}
    with pytest.raises(InputError) as caught:
        build(SEED, **columns)
    message = str(caught.value)
    assert message.startswith("row 0 has no column 'instances.0.outptu'")
    assert "instruction, instances.0.input, instances.0.output, answers.text" in message
    assert message.endswith("nearest: 'instances.0.output'")


@pytest.mark.parametrize("prompt", [None, {"role": "user"}, ["a"], 5, True, "", " \n", "\ud800"])
def test_a_prompt_that_is_no_text_is_an_error(prompt: object) -> None:
    with pytest.raises(InputError, match=r"row 1: .*prompt"):
        build({"prompt": "fine"}, {"prompt": prompt})


@pytest.mark.parametrize(
    ("field", "value"),
    [("references", {"a": "b"}), ("references", [["a"]]), ("id", []), ("task", {}), ("choices", [{}])],
)
def test_values_that_are_no_text_are_errors(field: str, value: object) -> None:
    with pytest.raises(InputError, match=r"row 0: .*must be text, not (dict|list)"):
        build({"prompt": "p", field: value})


def test_equal_ids_name_both_rows() -> None:
    with pytest.raises(InputError, match="row 0 and row 2 both have id 'a'"):
        build({"prompt": "p", "id": "a"}, {"prompt": "q", "id": "b"}, {"prompt": "r", "id": "a"})


def test_an_empty_id_column_numbers_the_rows() -> None:
    sequences = build({"prompt": "p", "id": "a"}, {"prompt": "q", "id": "a"}, id="")
    assert [sequence.id for sequence in sequences] == ["00000", "00001"]


def test_a_named_id_must_not_be_empty() -> None:
    with pytest.raises(InputError, match="row 0: id 'key' is empty"):
        build({"prompt": "p", "key": ""}, id="key")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["prompt", "references", "reference", "choices", "answer", "id", "task"])


@given(st.lists(st.dictionaries(_names, _json, max_size=7), max_size=3), st.booleans())
def test_any_rows_give_sequences_or_an_input_error(rows: list[dict[str, object]], cells: bool) -> None:
    try:
        sequences = build(*[{"prompt": "p", **row} for row in rows], cells=cells)
    except InputError as error:
        assert str(error).startswith(("row ", "ids must be unique"))
        return
    assert len(sequences) == len(rows)
    assert len(data_hash(sequences)) == 64
    for sequence in sequences:
        assert sequence.prompt.strip() and all(text.strip() for text in sequence.references)
        assert sequence.answer is None or 0 <= sequence.answer < len(sequence.choices)
