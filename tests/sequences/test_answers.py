"""Which choice an answer means, and when the data does not say."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from oracle.errors import InputError
from oracle.sequences import Columns, LoadedData, read_data


def read(path: Path, *rows: dict[str, Any], **columns: Any) -> LoadedData:
    path.write_text("".join(json.dumps({"prompt": "p", **row}) + "\n" for row in rows))
    return read_data(str(path), columns=Columns(**columns))


def answers(data: LoadedData) -> list[str | None]:
    return [None if one.answer is None else one.choices[one.answer] for one in data.sequences]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "d.jsonl"


def arc(key: object, labels: list[object], texts: tuple[str, ...] = ("ice", "iron", "gold", "stone")) -> dict[str, Any]:
    return {"choices": {"text": list(texts), "label": labels}, "answerKey": key}


def test_arc_keys_are_looked_up_among_the_labels_of_their_row(file: Path) -> None:
    rows = [
        arc("A", ["A", "B", "C", "D"]),
        arc("1", ["1", "2", "3", "4"]),
        arc("3", ["1", "2", "3", "4"]),
        arc(4, [1, 2, 3, 4]),
        arc("2", [1.0, 2.0, 3.0, 4.0]),
    ]
    for choices in ("choices.text", "choices"):
        data = read(file, *rows, choices=choices, answer="answerKey")
        assert answers(data) == ["ice", "ice", "gold", "stone", "iron"]
        [decision] = data.decisions
        assert decision["rule"] == "answers are looked up among the labels of the choices (--answer-as decides)"
        assert (decision["rows"], str(decision["first"]).endswith("line 2: '1' is 'ice' as label")) == (3, True)


@pytest.mark.parametrize(
    "choices",
    [
        [{"label": "x", "text": "ice"}, {"label": "y", "text": "iron"}],
        {"x": "ice", "y": "iron", "z": None},
        {"text": ["ice", "iron"], "label": ["x", "y"]},
        {"text": ["ice", "iron"], "label": [" X ", "Y"]},
    ],
)
def test_labels_in_their_other_forms(file: Path, choices: object) -> None:
    data = read(file, {"choices": choices, "answer": "y"})
    assert (data.sequences[0].choices, answers(data)) == (("ice", "iron"), ["iron"])


def test_labels_in_a_column_of_their_own_and_in_another_script(file: Path) -> None:
    row = {"choices": ["ice", "iron"], "keys": ["δ", "λ"], "answer": "λ"}
    assert answers(read(file, row, labels="keys")) == ["iron"]
    with pytest.raises(InputError, match=r"none|must be one of the 2 choices"):
        read(file, row)
    with pytest.raises(InputError, match=r"labels 'keys' must be a list of 2 texts"):
        read(file, {**row, "keys": ["λ"]}, labels="keys")


def test_flags_for_the_right_choice_are_no_labels(file: Path) -> None:
    row = {"mc1": {"choices": ["a", "b", "c"], "labels": [0, 1, 0]}}
    assert answers(read(file, row, choices="mc1.choices", answer="mc1.labels")) == ["b"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("b", "green"),
        ("(C)", "blue"),
        ("B.", "green"),
        ("Blue", "blue"),
        (" red ", "red"),
        ("2.0", "blue"),
        (1.0, "green"),
    ],
)
def test_letters_and_texts_in_other_clothes(file: Path, answer: object, right: str) -> None:
    assert answers(read(file, {"choices": ["red", "green", "blue"], "answer": answer})) == [right]


@pytest.mark.parametrize(
    ("choices", "answer", "readings"),
    [
        (["B", "A"], "A", "'A' is 'A' as text or 'B' as letter: decide with --answer-as text or letter"),
        (["2", "1", "0"], "0", "'0' is '0' as text or '2' as index: decide with --answer-as text or index"),
        ([2, 3, 4], 2, "2 is '2' as text or '4' as index"),
    ],
)
def test_readings_that_disagree_are_refused_with_both(
    file: Path, choices: list[object], answer: object, readings: str
) -> None:
    row = {"choices": choices, "answer": answer}
    with pytest.raises(InputError) as error:
        read(file, row)
    assert readings in str(error.value)
    assert answers(read(file, row, answer_as="text")) == [str(answer)]


def test_a_reading_that_fits_every_row_decides_and_it_is_said(file: Path) -> None:
    rows = [{"choices": ["48", "54", "64", "56"], "answer": 3}, {"choices": ["0", "2", "1"], "answer": 1}]
    data = read(file, *rows)
    assert answers(data) == ["56", "2"]
    assert data.decisions[-1]["rule"] == (
        "answers are read as the index of a choice, which fits every row (--answer-as decides)"
    )
    letters = read(file, {"choices": ["red", "blue"], "answer": "B"}, {"choices": ["B", "A"], "answer": "A"})
    assert answers(letters) == ["blue", "B"]


@pytest.mark.parametrize("kind", [str, int, float])
def test_numbers_that_count_from_1_are_never_taken_for_indices(file: Path, kind: type) -> None:
    rows = [{"choices": list("wxyz"), "answer": kind(number)} for number in (1, 2, 4)]
    with pytest.raises(
        InputError, match=r"all answers fit if they count from 1, .* is 'z': decide with --answer-as number"
    ):
        read(file, *rows)
    assert answers(read(file, *rows, answer_as="number")) == ["w", "x", "z"]
    with pytest.raises(
        InputError, match=r"line 3: answer 'answer' must be one of the 4 choices, read with --answer-as index"
    ):
        read(file, *rows, answer_as="index")


@pytest.mark.parametrize("kind", [str, int])
def test_numbers_that_fit_either_way_are_indices_and_it_is_said(file: Path, kind: type) -> None:
    rows = [{"choices": list("wxyz"), "answer": kind(number)} for number in (1, 2)]
    data = read(file, *rows)
    assert answers(data) == ["x", "y"]
    [decision] = data.decisions
    assert (
        decision["rule"]
        == "answers are indices from 0, though all would fit as numbers from 1, too (--answer-as decides)"
    )
    assert f"{kind(1)!r} is 'x' as index or 'w' as number" in str(decision["first"])
    assert read(file, *rows, {"choices": list("wxyz"), "answer": kind(0)}).decisions == []


def test_answer_as_is_the_only_reading(file: Path) -> None:
    row = {"choices": {"text": ["b", "a"], "label": ["1", "0"]}, "answer": "a"}
    assert answers(read(file, row, answer_as="letter")) == ["b"]
    assert answers(read(file, {**row, "answer": "1"}, answer_as="index")) == ["a"]
    assert answers(read(file, {**row, "answer": "1"}, answer_as="label")) == ["b"]
    with pytest.raises(InputError, match=r"choices have no labels: name them with --labels-column"):
        read(file, {"choices": ["a", "b"], "answer": "x"}, answer_as="label")
    with pytest.raises(InputError, match=r"--answer-as needs one of label, text, letter, index, number, not 'txt'"):
        Columns(answer_as="txt")  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [-1, "D", "purple", 0.5, True, ["red"], 3, {}])
def test_an_answer_that_is_none_of_the_choices(file: Path, answer: object) -> None:
    with pytest.raises(InputError, match=r"line 1: answer 'answer' must be one of the 3 choices.*--answer-column"):
        read(file, {"choices": ["red", "green", "blue"], "answer": answer})


def test_rows_without_a_right_choice_are_left_out_on_request(file: Path) -> None:
    rows = [{"choices": ["a", "b"], "answer": number} for number in (0, -1, 1)]
    with pytest.raises(InputError, match=r"line 2: .*; --skip-unusable leaves such rows out"):
        read(file, *rows)
    data = read_data(str(file), skip_unusable=True)
    assert (answers(data), data.skipped) == (["a", "b"], {"the answer is none of the choices": 1})


def test_class_labels_as_answers(tmp_path: Path) -> None:
    def saved(names: list[str], numbers: list[int], choices: list[str]) -> LoadedData:
        features = datasets.Features(
            {
                "prompt": datasets.Value("string"),
                "choices": datasets.List(datasets.Value("string")),
                "answer": datasets.ClassLabel(names=names),
            }
        )
        rows = [{"prompt": "p", "choices": choices, "answer": number} for number in numbers]
        path = str(tmp_path / "-".join([*names, *choices]))
        datasets.Dataset.from_list(rows, features=features).save_to_disk(path)
        return read_data(path)

    assert answers(saved(["A", "B"], [0, 1], ["ice", "iron"])) == ["ice", "iron"]
    assert answers(saved(["geo", "math"], [0, 1], ["math", "geo"])) == ["geo", "math"]
    assert answers(saved(["1", "2"], [0, 1], ["ice", "iron"])) == ["ice", "iron"]


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "gold", "B) gold"])
def test_letters_are_those_that_the_choices_state(file: Path, answer: str) -> None:
    row = {"choices": ["B) gold", "A) iron"], "answer": answer}
    assert answers(read(file, row)) == ["B) gold"]


def test_letters_that_only_some_choices_state_are_places(file: Path) -> None:
    for choices in (["B) gold", "iron"], ["B) gold", "B) iron"], ["B) gold", "1) iron"], ["B)", "A)"]):
        assert answers(read(file, {"choices": choices, "answer": "B"})) == [choices[1]]


def test_labels_are_found_in_brackets_too(file: Path) -> None:
    row = {"choices": {"text": ["ice", "iron"], "label": ["B", "A"]}, "answer": "(A)"}
    assert answers(read(file, row)) == ["iron"]


def test_numbers_that_the_choices_state_are_no_indices_unless_the_data_say_so(file: Path) -> None:
    choices = ["1. ice", "2. iron", "3. gold"]
    assert answers(read(file, *({"choices": choices, "answer": number} for number in (1, 2, 3)))) == choices
    # A 0 shows that they are indices; without one nothing does.
    rows = [{"choices": choices, "answer": number} for number in (2, 0, 1)]
    data = read(file, *rows)
    assert answers(data) == [choices[2], choices[0], choices[1]]
    assert "answers are read as the index of a choice, which fits every row" in str(data.decisions[0]["rule"])
    with pytest.raises(InputError, match=r"'2\. iron' as index or '1\. ice' as number: decide with --answer-as"):
        read(file, {"choices": choices, "answer": 1})
    assert answers(read(file, {"choices": choices, "answer": 1}, answer_as="number")) == ["1. ice"]
    assert answers(read(file, {"choices": choices, "answer": 1}, answer_as="index")) == ["2. iron"]
    # From 0 both say the same.
    assert answers(read(file, {"choices": ["0: ice", "1: iron"], "answer": 1})) == ["1: iron"]
