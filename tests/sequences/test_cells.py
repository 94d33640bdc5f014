"""Lists written out as text, and whole numbers in floating point."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oracle.errors import InputError
from oracle.sequences import Columns, Layout, LoadedData, read_data
from oracle.sequences.notation import almost_list, as_list, json_kind


@pytest.mark.parametrize(
    ("text", "items", "notation"),
    [
        ('["Rome", "Roma"]', ["Rome", "Roma"], "JSON"),
        ("['Rome', 'Roma']", ["Rome", "Roma"], "Python"),
        ("""["It's", 'a "b"', 'c\\'d']""", ["It's", 'a "b"', "c'd"], "Python"),
        ("['Rome' 'Roma']", ["Rome", "Roma"], "numpy"),
        ("['Rome'\n 'Roma']", ["Rome", "Roma"], "numpy"),
        ("array(['a', 'b'], dtype=object)", ["a", "b"], "numpy"),
        ("array(['a' 'b'])", ["a", "b"], "numpy"),
        (repr(np.array([["a"], ["b"]])[0]), ["a"], "numpy"),
        ("[1. 2.5 3.]", [1.0, 2.5, 3.0], "numpy"),
        ("('a', 'b')", ["a", "b"], "Python"),
        ("{'b', 'a'}", ["b", "a"], "Python"),
        ("[]", [], "JSON"),
        ("[None, 'a']", [None, "a"], "Python"),
        ("  ['a']  ", ["a"], "Python"),
    ],
)
def test_lists_in_three_notations(text: str, items: list[object], notation: str) -> None:
    assert as_list(text) == (items, notation)


@pytest.mark.parametrize(
    "text",
    [
        "Rome",
        "[sic] he said",
        "[1] Smith (2004)",
        "(1, 2)",
        "('a')",
        "{1, 2}",
        "{'a': 1}",
        "[Rome, Roma]",
        "[open('x')]",
        r"('\d' is '\w')",
        "['a' 'b', 'c']",
        "[" * 5000,
        "",
    ],
)
def test_other_texts_are_no_lists(text: str) -> None:
    assert as_list(text) is None


def test_what_numpy_shortens_is_almost_a_list() -> None:
    assert almost_list("['a' 'b' ... 'y' 'z']") and almost_list("['a' 'b', 'c']")
    assert not almost_list("['a', 'b']") and not almost_list("[a]")


def test_kinds_of_json() -> None:
    assert [json_kind(text) for text in ('{"a": 1}', "[1]", '"a"', "7", "{a}", "true")] == [
        "object",
        "list",
        "text",
        None,
        None,
        None,
    ]


def read(path: Path, rows: list[dict[str, Any]], cells: str = "auto", **columns: Any) -> LoadedData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_data(str(path), columns=Columns(**columns), layout=Layout(cells=cells))  # type: ignore[arg-type]


def rules(data: LoadedData) -> str:
    return "\n".join(str(entry["rule"]) for entry in data.decisions)


def test_columns_of_lists_as_pandas_writes_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "prompt": ["Capital of Italy?", "Two plus two?"],
            "lists": [["Rome", "Roma"], ["four", "4"]],
            "arrays": [np.array(["Rome", "Roma"]), np.array(["four", "4"])],
            "tuples": [("Rome", "Roma"), ("four", "4")],
            "jsons": ['["Rome", "Roma"]', '["four", "4"]'],
        }
    )
    path = tmp_path / "d.csv"
    frame.to_csv(path, index=False)
    for column, notation in (("lists", "Python"), ("arrays", "numpy"), ("tuples", "Python"), ("jsons", "JSON")):
        data = read_data(str(path), columns=Columns(references=(column,)))
        assert [one.references for one in data.sequences] == [("Rome", "Roma"), ("four", "4")]
        assert data.decisions[0]["rule"] == (
            f"column '{column}': texts in {notation} notation are lists (--cells text keeps them)"
        )
        assert data.decisions[0]["rows"] == 2
    written = read_data(str(path), columns=Columns(references=("lists",)), layout=Layout(cells="text"))
    assert written.sequences[0].references == ("['Rome', 'Roma']",) and not written.decisions


def test_choices_as_pandas_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,choices,answer\nPick,\"['yes', 'no']\",no\nPick,\"['a b', 'c']\",c\n")
    sequences = read_data(str(path)).sequences
    assert [(one.choices, one.answer) for one in sequences] == [(("yes", "no"), 1), (("a b", "c"), 1)]


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,references\np,['a' 'b' ... 'y' 'z']\n")
    with pytest.raises(InputError, match=r"looks like a list, but not in the notation .*--cells text"):
        read_data(str(path))


def test_texts_like_lists_in_a_format_with_lists_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "p", "references": "['Rome', 'Roma']"}
    with pytest.raises(
        InputError, match=r"line 1: reference 'references' can be read as the text .* or as a list of 2 in "
    ):
        read(tmp_path / "d.jsonl", [row])
    assert read(tmp_path / "d.jsonl", [row], "lists").sequences[0].references == ("Rome", "Roma")
    assert read(tmp_path / "d.jsonl", [row], "text").sequences[0].references == ("['Rome', 'Roma']",)


def test_intervals_and_json_objects_stay_texts_and_it_is_said(tmp_path: Path) -> None:
    data = read(tmp_path / "d.jsonl", [{"prompt": '{"a": 1}', "references": "[-2, 7]", "reference": "x"}])
    assert (data.sequences[0].prompt, data.sequences[0].references) == ('{"a": 1}', ("[-2, 7]",))
    assert "prompts that parse as a JSON object are texts" in rules(data)
    assert "texts that look like lists of numbers are texts" in rules(data)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_whole_numbers_in_a_column_with_a_gap(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"prompt": ["9+9?", "5*5?", "none"], "result": [18, 25, None]})
    path = tmp_path / f"d{suffix}"
    frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    assert "18.0" in path.read_text()
    columns = Columns(references=("result",))
    data = read_data(str(path), columns=columns)
    assert [one.references for one in data.sequences] == [("18",), ("25",), ()]
    assert rules(data) == "column 'result': whole numbers with gaps: 18.0 is read as 18 (--cells text keeps it)"
    written = read_data(str(path), columns=columns, layout=Layout(cells="text"))
    assert written.sequences[0].references == ("18.0",)
    frame.to_parquet(tmp_path / "d.parquet")
    assert [one.references for one in read_data(str(tmp_path / "d.parquet"), columns=columns).sequences] == [
        ("18",),
        ("25",),
        (),
    ]


def test_versions_without_gaps_are_kept_as_written(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,references\np,2.0\nq,3.0\n")
    data = read_data(str(path))
    assert [one.references for one in data.sequences] == [("2.0",), ("3.0",)]
    assert "kept as written" in rules(data)


def test_numbers_of_json_are_whole_only_if_all_are(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "references": 18.0}, {"prompt": "q", "references": [25.0, 7]}, {"prompt": "r"}]
    assert [one.references for one in read(tmp_path / "d.jsonl", rows).sequences] == [("18",), ("25", "7"), ()]
    mixed = read(tmp_path / "d.jsonl", [*rows, {"prompt": "s", "references": 2.5}])
    assert [one.references for one in mixed.sequences] == [("18.0",), ("25.0", "7"), (), ("2.5",)]
    assert "some numbers are not whole" in rules(mixed)
    huge = read(tmp_path / "d.jsonl", [{"prompt": "p", "references": 1e300}])
    assert huge.sequences[0].references == ("1e+300",)


def test_whole_numbers_in_templates_ids_and_tasks(tmp_path: Path) -> None:
    rows = [{"a": 9.0, "b": None, "id": 1.0, "task": 3.0}, {"a": 5.0, "b": 2.0, "id": 2.0, "task": 3.0}]
    sequences = read(tmp_path / "d.jsonl", rows, template="{a}+{b}?").sequences
    assert [(one.id, one.prompt, one.task) for one in sequences] == [("1", "9+?", "3"), ("2", "5+2?", "3")]


def test_one_fraction_makes_cells_of_a_column_texts(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,references\np,1.0\nq,\nr,2.5\n")
    assert [one.references for one in read_data(str(path)).sequences] == [("1.0",), (), ("2.5",)]


def test_whole_numbers_in_lists_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,references\np,"[1.0, 2.0]"\nq,[3.]\n')
    assert [one.references for one in read_data(str(path)).sequences] == [("1", "2"), ("3",)]


def test_objects_in_cells_are_refused_with_both_readings(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    frame = pd.DataFrame({"prompt": ["p"], "references": [{"text": np.array(["a"], dtype=object), "start": [1]}]})
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"as an object in Python notation or as the text .*--cells text"):
        read_data(str(path))
    written = read_data(str(path), layout=Layout(cells="text"))
    assert written.sequences[0].references == (str(frame["references"][0]),)


def test_words_for_a_missing_value_are_texts_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,references\nIs it?,None\nq,\n")
    data = read_data(str(path))
    assert [one.references for one in data.sequences] == [("None",), ()]
    assert "words for a missing value" in rules(data)


def test_infinite_numbers_are_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "p", "references": [1e400, "b"]}\n')
    with pytest.raises(InputError, match=r"reference 'references' must be text, not an infinite number"):
        read_data(str(path))
    path.write_text('{"prompt": "p", "references": [1' + 400 * "0" + "]}\n")
    assert read_data(str(path)).sequences[0].references == ("1" + 400 * "0",)
