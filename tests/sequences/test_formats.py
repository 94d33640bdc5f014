"""Each format is read by its own convention; what several readings fit is decided by a rule that is recorded."""

import bz2
import datetime
import gzip
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oracle.errors import InputError
from oracle.sequences import Columns, Layout, LoadedData, load_sequences, read_data
from oracle.types import Sequence

ONE = {"prompt": "Say yes.", "references": ["yes"]}
YES = [Sequence(id="00000", prompt="Say yes.", references=("yes",))]


def read(path: Path, content: str | bytes, layout: Layout = Layout(), **columns: Any) -> LoadedData:  # noqa: B008
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_data(str(path), columns=Columns(**columns), layout=layout)


def rules(data: LoadedData) -> str:
    return "\n".join(str(entry["rule"]) for entry in data.decisions)


@pytest.mark.parametrize("suffix", [".jl", ".jsonl", ".jsonlines", ".ndjson"])
def test_json_lines_by_any_of_their_suffixes(tmp_path: Path, suffix: str) -> None:
    data = read(tmp_path / f"d{suffix}", json.dumps(ONE) + "\n")
    assert (data.sequences, data.decisions) == (YES, [])


def _zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", _zst)],
)
def test_compression_goes_by_the_suffix(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    raw = (json.dumps(ONE) + "\n").encode()
    assert read(tmp_path / f"d.jsonl{suffix}", compress(raw)).sequences == YES
    assert read(tmp_path / f"d.CSV{suffix.upper()}", compress(b"prompt;references\nSay yes.;yes\n")).sequences == YES
    for broken in (raw, compress(raw * 99)[:-9], compress(raw)[:9]):
        with pytest.raises(
            InputError, match=rf"d\.jsonl\{suffix} must be compressed as its suffix {suffix} says"
        ) as error:
            read(tmp_path / f"d.jsonl{suffix}", broken)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=rf"d\.jsonl\{suffix} must "):
        read(tmp_path / f"d.jsonl{suffix}", b"")


def test_compression_without_its_suffix_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d\.jsonl is compressed.*rename it to d\.jsonl\.gz"):
        read(tmp_path / "d.jsonl", gzip.compress(b"{}"))
    with pytest.raises(InputError, match=r"d\.xlsx must be JSON lines, .* not \.xlsx: export it"):
        read(tmp_path / "d.xlsx", b"PK\x03\x04")


def test_compressed_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ONE]), tmp_path / "plain.parquet")
    content = gzip.compress((tmp_path / "plain.parquet").read_bytes())
    assert read(tmp_path / "d.parquet.gz", content).sequences == YES


ALPACA = [
    {"instruction": "Name the capital.", "input": "Italy", "output": "Rome"},
    {"instruction": "Say yes.", "input": "", "output": "yes"},
]


def test_a_pretty_printed_json_array(tmp_path: Path) -> None:
    layout = {"template": "{instruction} {input}", "references": ("output",)}
    for text in (json.dumps(ALPACA, indent=2), json.dumps(ALPACA), "\ufeff" + json.dumps(ALPACA, indent=1)):
        sequences = read(tmp_path / "d.json", text, **layout).sequences
        assert [(one.prompt, one.references) for one in sequences] == [
            ("Name the capital. Italy", ("Rome",)),
            ("Say yes.", ("yes",)),
        ]


def test_records_under_the_only_key_that_has_some(tmp_path: Path) -> None:
    data = read(tmp_path / "d.json", json.dumps({"version": "1", "data": [ONE], "tags": ["a", "b"]}))
    assert data.sequences == YES
    assert rules(data) == "the records are those under the key 'data' (--records decides)"
    nested = read(tmp_path / "d.json", json.dumps({"result": {"rows": [ONE]}}))
    assert nested.sequences == YES and "'result.rows'" in rules(nested)


def test_records_under_several_keys_must_be_named(tmp_path: Path) -> None:
    content = json.dumps({"train": [ONE], "test": [{"prompt": "Say no.", "references": ["no"]}]})
    with pytest.raises(InputError, match=r"records under the keys train, test: name one of them with --records"):
        read(tmp_path / "d.json", content)
    assert read(tmp_path / "d.json", content, Layout(records="train")).sequences == YES
    with pytest.raises(InputError, match=r"no records under 'tset': 'tset' is missing; .* nearest: 'test'"):
        read(tmp_path / "d.json", content, Layout(records="tset"))


def test_records_below_lists_inherit_what_stands_beside_them(tmp_path: Path) -> None:
    squad = {
        "data": [
            {"title": "T", "paragraphs": [{"context": "Rome is old.", "qas": [{"question": "What?", "id": "a"}]}]},
            {"title": "U", "paragraphs": [{"context": "Oslo.", "qas": [{"question": "Which?", "id": "b"}]}]},
        ]
    }
    layout = Layout(records="data.paragraphs.qas")
    sequences = read(
        tmp_path / "d.json", json.dumps(squad), layout, template="{context} {question}", task="title"
    ).sequences
    assert sequences == [
        Sequence(id="a", prompt="Rome is old. What?", task="T"),
        Sequence(id="b", prompt="Oslo. Which?", task="U"),
    ]


def test_a_single_record_is_no_wrapper(tmp_path: Path) -> None:
    record = {**ONE, "messages": [{"a": 1}]}
    assert read(tmp_path / "d.json", json.dumps(record, indent=1)).sequences == YES


def test_records_by_id(tmp_path: Path) -> None:
    data = read(tmp_path / "d.json", json.dumps({"q7": ONE, "q8": ONE}))
    assert [one.id for one in data.sequences] == ["q7", "q8"]
    assert "their keys are the ids" in rules(data)


def test_records_by_id_under_a_key(tmp_path: Path) -> None:
    content = json.dumps({"kind": "geo", "items": {"q7": ONE, "q8": ONE}})
    data = read(tmp_path / "d.json", content, Layout(records="items"), task="kind")
    assert [(one.id, one.task) for one in data.sequences] == [("q7", "geo"), ("q8", "geo")]


def test_json_by_columns_is_refused_by_name(tmp_path: Path) -> None:
    frame = pd.DataFrame([ONE, ONE])
    for text in (frame.to_json(), json.dumps(frame.to_dict(orient="list"))):
        with pytest.raises(InputError, match=r"column by column .*orient='records'"):
            read(tmp_path / "d.json", str(text))
    assert len(read(tmp_path / "d.json", str(frame.to_json(orient="records"))).sequences) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n {"prompt": "a"},\n {"prompt": }\n]', r"d\.json line 3 must be JSON: Expecting value"),
        ('["a", "b"]', r"d\.json item 0 must be one JSON object, not str"),
        ('{"prompt": "a"}\n{"prompt": \n', r"d\.json line 2 must be one JSON object"),
        ('{"prompt": "a", "prompt": "b"}', r"the key 'prompt' occurs twice"),
    ],
)
def test_broken_json_names_the_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "d.json", content)
    assert "\n" not in str(error.value)


def test_a_document_in_a_file_of_json_lines_names_the_option(tmp_path: Path) -> None:
    for text in (json.dumps([ONE], indent=1), json.dumps([ONE])):
        with pytest.raises(InputError, match=r"line 1 must be one JSON object.*--format json"):
            read(tmp_path / "d.jsonl", text)
        assert read(tmp_path / "d.jsonl", text, Layout(format="json")).sequences == YES


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
def test_the_separator_of_csv_is_found_and_said(tmp_path: Path, separator: str, name: str) -> None:
    rows = [("prompt", "references", "note"), ('"Yes, or; no?"', "yes, of course", "a|b" if separator != "|" else "")]
    content = "".join(separator.join(row) + "\r\n" for row in rows)
    data = read(tmp_path / "d.csv", content)
    assert [(one.prompt, one.references) for one in data.sequences] == [("Yes, or; no?", ("yes, of course",))]
    assert rules(data) == f"the cells are separated by {name}, not by comma (--separator decides)"


def test_commas_in_the_header_of_another_separator(tmp_path: Path) -> None:
    data = read(tmp_path / "d.csv", "prompt;references;a,b\nYes?;yes;1\nNo, no?;no;2\n")
    assert [one.references for one in data.sequences] == [("yes",), ("no",)]
    with pytest.raises(InputError, match=r"can be split in several ways \(comma: 'a', .*name the right one with --sep"):
        read(tmp_path / "d.csv", "a,b;c\nYes?,no;1\n")
    named = read(tmp_path / "d.csv", "a^prompt\n1^Yes?\n", Layout(separator="^"))
    assert [one.prompt for one in named.sequences] == ["Yes?"]
    excel = read(tmp_path / "d.csv", "sep=;\nprompt;references\nSay yes.;yes\n")
    assert excel.sequences == YES


def test_csv_cells_of_any_length_with_quoted_line_ends(tmp_path: Path) -> None:
    long = "word " * 60_000 + "\n\r\nend"
    data = read(tmp_path / "d.csv", f'prompt,references\r\n"{long}",yes\r\n')
    assert data.sequences[0].prompt == long


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    data = read(tmp_path / "d.tsv", 'prompt\treferences\r\n"Yes, or no?"\tsay "yes\r\n5" disk\t"\n')
    assert [(one.prompt, one.references) for one in data.sequences] == [
        ('"Yes, or no?"', ('say "yes',)),
        ('5" disk', ('"',)),
    ]
    assert "quotation marks around a cell are part of its text" in rules(data)
    quoted = read(tmp_path / "d.tsv", 'prompt\treferences\n"a\tb"\tyes\n', Layout(format="csv", separator="tab"))
    assert quoted.sequences[0].prompt == "a\tb"
    with pytest.raises(InputError, match=r"d\.tsv line 2 must have 2 cells like the header, not 3"):
        read(tmp_path / "d.tsv", "prompt\treferences\na\tb\tc\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    tab = "," if name == "d.csv" else "\t"
    data = read(
        tmp_path / name, f"prompt{tab}references\r\nGrüße, Ω?\r\n".replace(", Ω", f" Ω?{tab}ja").encode(encoding)
    )
    assert [(one.prompt, one.references) for one in data.sequences] == [("Grüße Ω?", ("ja?",))]
    assert ("byte order mark" in rules(data)) is (encoding != "utf-8-sig")


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d\.csv line 1 must be text, but has a zero byte, as in UTF-16"):
        read(tmp_path / "d.csv", "prompt\nYes?\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"d\.csv line 2 must be UTF-8, but has byte 0xfc"):
        read(tmp_path / "d.csv", "prompt\nGrüße?\n".encode("latin-1"))


def test_carriage_returns_alone_end_lines(tmp_path: Path) -> None:
    data = read(tmp_path / "d.tsv", "prompt\treferences\rSay yes.\tyes\r")
    assert data.sequences == YES and "carriage returns" in rules(data)


def test_json_lines_in_a_text_file_are_refused_with_both_readings(tmp_path: Path) -> None:
    content = json.dumps(ONE) + "\n"
    with pytest.raises(InputError, match=r"JSON lines, .* or as plain text.*--format jsonl or --format text"):
        read(tmp_path / "d.txt", content)
    assert read(tmp_path / "d.txt", content, Layout(format="jsonl")).sequences == YES
    text = read(tmp_path / "d.txt", content, Layout(format="text"))
    assert text.sequences[0].prompt == json.dumps(ONE)
    assert "prompts that parse as a JSON object are texts" in rules(text)


def test_an_unknown_suffix_is_text_and_says_so(tmp_path: Path) -> None:
    data = read(tmp_path / "d.dat", "One?\nTwo?\n")
    assert [one.prompt for one in data.sequences] == ["One?", "Two?"]
    assert "plain text, one prompt per line, as its suffix .dat" in rules(data)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.json", "d.txt", "d.tsv"])
def test_an_empty_file_has_no_sequences(tmp_path: Path, name: str) -> None:
    for content in ("", "\n", "\ufeff"):
        with pytest.raises(InputError) as error:
            read(tmp_path / name, content)
        assert name in str(error.value) and "\n" not in str(error.value)


FEATURES = datasets.Features(
    {
        "prompt": datasets.Value("string"),
        "kind": datasets.ClassLabel(names=["geo", "math"]),
        "parts": [{"tone": datasets.ClassLabel(names=["dry", "warm"])}],
        "tags": datasets.List(datasets.ClassLabel(names=["x", "y"])),
    }
)
LABELLED = [
    {"prompt": "Capital?", "kind": 0, "parts": [{"tone": 1}], "tags": [1, 0]},
    {"prompt": "9+9?", "kind": 1, "parts": [{"tone": 0}], "tags": []},
]


def test_class_labels_of_saved_data_have_names(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list(LABELLED, features=FEATURES)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "two")
    made.to_parquet(tmp_path / "d.parquet")
    [arrow] = (tmp_path / "one").glob("*.arrow")
    for source in (tmp_path / "one", f"{tmp_path}/two::test", tmp_path / "d.parquet", arrow):
        columns = Columns(task="kind", references=("parts.0.tone", "tags"))
        data = read_data(str(source), columns=columns)
        assert [one.task for one in data.sequences] == ["geo", "math"]
        assert [one.references for one in data.sequences] == [("warm", "y", "x"), ("dry",)]
        assert rules(data) == "class labels are read by name, not by number: kind, parts, tags"


def test_a_class_label_without_a_name_is_missing(tmp_path: Path) -> None:
    rows = [{**LABELLED[0], "kind": -1}]
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(tmp_path / "one")
    assert load_sequences(str(tmp_path / "one"), columns=Columns(references=("kind",)))[0].references == ()


def test_parquet_of_lists_dates_and_other_types(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "p",
            "when": datetime.datetime(2024, 5, 1),
            "day": datetime.date(2024, 5, 2),
            "clock": datetime.time(9, 30),
            "price": Decimal("18.00"),
            "flag": True,
            "small": 7,
            "texts": ["a", None, "b"],
            "array": [1.0, 2.0],
        }
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    names = ("when", "day", "clock", "price", "flag", "small", "texts", "array")
    data = read_data(str(tmp_path / "d.parquet"), columns=Columns(references=names))
    expected = ("2024-05-01", "2024-05-02", "09:30:00", "18.00", "true", "7", "a", "b", "1", "2")
    assert data.sequences[0].references == expected
    assert "all times are midnight and read as dates" in rules(data)
    assert "column 'flag': truth values are written as in JSON" in rules(data)
    as_written = read_data(
        str(tmp_path / "d.parquet"), columns=Columns(references=("array",)), layout=Layout(cells="text")
    )
    assert as_written.sequences[0].references == ("1.0", "2.0")


@pytest.mark.parametrize("damage", ["cut", "no features", "no JSON", "no state", "no arrow"])
def test_a_damaged_saved_data_set_is_one_line(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "one"
    datasets.Dataset.from_list(LABELLED, features=FEATURES).save_to_disk(folder)
    [arrow] = folder.glob("*.arrow")
    if damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[:200])
    elif damage == "no features":
        (folder / "dataset_info.json").write_text('{"features": {"prompt": {"_type": "Nothing"}}}')
    elif damage == "no JSON":
        (folder / "dataset_info.json").write_text("{")
    else:
        (arrow if damage == "no arrow" else folder / "state.json").unlink()
    with pytest.raises(InputError, match=r"one'?:") as error:
        load_sequences(str(folder))
    assert "\n" not in str(error.value)


def test_a_folder_with_configurations_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("easy-train", "easy-test", "hard-test"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"prompt": name}) + "\n")
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: easy\n  data_files:\n"
        "  - {split: train, path: easy-train.jsonl}\n  - {split: test, path: easy-test.jsonl}\n"
        "- config_name: hard\n  data_files:\n  - {split: test, path: hard-test.jsonl}\n---\n"
    )
    for name, prompt in (
        ("easy:test", "easy-test"),
        ("easy:train", "easy-train"),
        ("hard:test", "hard-test"),
        ("hard", "hard-test"),
    ):
        assert [one.prompt for one in load_sequences(f"{folder}:{name}")] == [prompt]
    with pytest.raises(InputError, match=r"needs one of its splits train, test, not none: write .*:easy:test"):
        load_sequences(f"{folder}:easy")
    with pytest.raises(InputError, match=r"cannot load data set .*name a configuration it has"):
        load_sequences(str(folder))


def test_binary_columns_name_the_option(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"prompt": b"p"}]), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"must be text, not bytes: name .* --prompt-column"):
        load_sequences(str(tmp_path / "d.parquet"))


def test_any_error_of_a_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("deep\ninside")

    monkeypatch.setattr(pq, "read_table", broken)
    (tmp_path / "d.parquet").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"cannot read .*d\.parquet: AssertionError: deep inside: check the file"
    ) as error:
        load_sequences(str(tmp_path / "d.parquet"))
    assert isinstance(error.value.__cause__, AssertionError)


@pytest.mark.parametrize("layout", [Layout(format="csv"), Layout(separator=";"), Layout(records="data")])
def test_options_of_files_do_not_go_with_names(layout: Layout, tmp_path: Path) -> None:
    for name in ("instruct", "squad", str(tmp_path)):
        with pytest.raises(InputError, match=r"^--(format|separator|records) is for files"):
            read_data(name, layout=layout)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "jsnol"}, r"--format needs one of auto, jsonl, .*, not 'jsnol'; nearest: 'jsonl'"),
        ({"cells": "list"}, r"--cells needs one of auto, lists, text, not 'list'; nearest: 'lists'"),
        ({"separator": "ab"}, r"--separator needs one character, or tab, comma, .*, not 'ab'"),
        ({"separator": ";", "format": "json"}, r"--separator is for CSV, not for --format json"),
        ({"records": "a", "format": "csv"}, r"--records is for JSON, not for --format csv"),
        ({"records": ""}, r"--records needs the key"),
    ],
)
def test_a_bad_layout_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layout(**changes)
