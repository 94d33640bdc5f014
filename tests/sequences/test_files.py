import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.sequences import Columns, load_sequences, read_data
from oracle.types import Sequence

ROWS = [
    {"id": "a", "prompt": "Über 1,5 \u2028 m?", "references": ["ja", "yes"], "task": "t"},
    {"id": "b", "prompt": 'say "hi",\nplease', "references": ["hi"], "task": ""},
]
SEQUENCES = [
    Sequence(id="a", prompt="Über 1,5 \u2028 m?", references=("ja", "yes"), task="t"),
    Sequence(id="b", prompt='say "hi",\nplease', references=("hi",)),
]
CSV = 'id,prompt,references,task\r\na,"Über 1,5 \u2028 m?","[""ja"", ""yes""]",t\r\n\r\nb,"say ""hi"",\nplease",hi,\r\n'


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL", ".json"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_jsonl(tmp_path: Path, suffix: str, start: str) -> None:
    assert load_sequences(write(tmp_path / f"d{suffix}", start + jsonl(ROWS) + "\n")) == SEQUENCES


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv(tmp_path: Path, start: str) -> None:
    assert load_sequences(write(tmp_path / "d.csv", start + CSV)) == SEQUENCES


def test_tsv(tmp_path: Path) -> None:
    file = write(tmp_path / "d.tsv", "prompt\treference\none, two\tthree\n")
    assert load_sequences(file) == [Sequence(id="00000", prompt="one, two", references=("three",))]


def test_parquet(tmp_path: Path) -> None:
    # In a folder that looks like a partition, which must not add a column.
    (tmp_path / "task=x").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "task=x" / "d.parquet")
    assert load_sequences(str(tmp_path / "task=x" / "d.parquet")) == SEQUENCES


def test_nested_parquet(tmp_path: Path) -> None:
    rows = [{"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    columns = Columns(prompt="question", choices="choices.text", answer="answerKey")
    assert load_sequences(str(tmp_path / "d.parquet"), columns=columns) == [
        Sequence(id="00000", prompt="q", choices=("x", "y"), answer=1)
    ]


def test_aligned_text(tmp_path: Path) -> None:
    source = write(tmp_path / "news.de", "eins\u2028und\r\nzwei\r\n")
    first = write(tmp_path / "news.en", "one\ntwo")
    second = write(tmp_path / "other.en", "\n2\n")
    sequences = load_sequences(
        source, reference_files=(first, second), columns=Columns(template="To English: {prompt}")
    )
    assert sequences == [
        Sequence(id="00000", prompt="To English: eins\u2028und", references=("one",)),
        Sequence(id="00001", prompt="To English: zwei", references=("two", "2")),
    ]


def test_unequal_line_counts_name_both(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.txt", "1\n2\n3\n"), write(tmp_path / "b.txt", "1\n2\n")
    with pytest.raises(InputError, match=r"a\.txt and .*b\.txt must have the same number of lines, not 3 and 2"):
        load_sequences(source, reference_files=(target,))


def test_reference_files_go_with_text_files_only(tmp_path: Path) -> None:
    file, target = write(tmp_path / "d.jsonl", jsonl(ROWS)), write(tmp_path / "b.txt", "1\n2\n")
    for data in (file, "instruct"):
        with pytest.raises(InputError, match="reference files need a text file"):
            load_sequences(data, reference_files=(target,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "d.jsonl",
            '{"prompt": "a"}\n\n{"prompt": \n',
            r"d\.jsonl line 3 must be one JSON object: Expecting value",
        ),
        ("d.jsonl", '{"prompt": "a"}\n["b"]\n', r"d\.jsonl line 2 must be one JSON object, not list"),
        (
            "d.jsonl",
            '{"a": ' + "9" * 5000 + "}",
            r"d\.jsonl line 1 must be one JSON object: Exceeds the limit",
        ),
        ("d.jsonl", "[" * 100_000, r"d\.jsonl line 1 must be one JSON object: maximum recursion"),
        ("d.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', r"d\.jsonl line 2 must be UTF-8.*0xff"),
        ("d.jsonl", b"\xef\xbb\xbf{}\n\n\xff", r"d\.jsonl line 3 must be UTF-8"),
        ("d.jsonl", '{"prompt": "\\ud800"}', r"d\.jsonl line 1: prompt 'prompt' has half a surrogate"),
        ("d.csv", b"prompt\na\n\xe4\n", r"d\.csv line 3 must be UTF-8"),
        ("d.csv", 'prompt,id\n"two\nlines",1\nb\n', r"d\.csv line 4 must have 2 cells like the header, not 1"),
        ("d.csv", 'prompt\na\n"b', r"d\.csv line 3 is not valid CSV: unexpected end of data"),
        ("d.csv", 'prompt\n"b"c\n', r"d\.csv line 2 is not valid CSV"),
        ("d.csv", "prompt,id,prompt\n", r"d\.csv line 1: column names must differ, but 'prompt'"),
        ("d.parquet", b"PAR1 not really PAR1", r"d\.parquet must be a Parquet file"),
        ("d.txt", "a\n\nb\n", r"d\.txt line 2: the prompt is empty"),
        (
            "d.jsonl",
            '{"q": "a"}\n',
            r"d\.jsonl line 1 has no column 'prompt': name another with --prompt-column .*; available columns: q",
        ),
        ("d.jsonl", "\n", r"d\.jsonl must have at least one sequence"),
        ("d.csv", "", r"d\.csv must have at least one sequence"),
        ("d.csv", "prompt\n", r"d\.csv must have at least one sequence"),
        ("d.txt", "", r"d\.txt must have at least one sequence"),
    ],
)
def test_a_broken_file_names_the_place_and_the_reason(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_sequences(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_cut_off_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    whole = (tmp_path / "d.parquet").read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        with pytest.raises(InputError, match=r"d\.parquet must be a Parquet file"):
            load_sequences(write(tmp_path / "d.parquet", whole[:size]))


_written = b'{"prompt": "a"}|{"prompt"|: |"x"|}|prompt|,|\t|"|\n|\r|[|]|1e999|null|id|references|\\ud800'
_pieces = st.sampled_from([*_written.split(b"|"), b"\xef\xbb\xbf", b"\xff", b"\x00", "é".encode()])
_bytes = st.binary(max_size=60) | st.lists(_pieces, max_size=20).map(b"".join)


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.tsv", "d.txt", "d.parquet", "d.arrow", "d.csv.gz"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_bytes)
def test_any_bytes_give_sequences_or_an_input_error(tmp_path: Path, name: str, content: bytes) -> None:
    try:
        sequences = load_sequences(write(tmp_path / name, content))
    except InputError as error:
        assert name in str(error) or "prompt" in str(error)
        assert "\n" not in str(error)
    else:
        assert sequences and all(sequence.prompt.strip() for sequence in sequences)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_numbers_of_low_precision_are_those_that_the_file_means(tmp_path: Path, kind: str) -> None:
    number = getattr(pa, kind)()
    values = [np.dtype(kind).type(value) for value in (0.1, 2.7)]
    columns = {
        "prompt": pa.array(["a", "b"]),
        "references": pa.array([[values[0]], [values[1], None]], pa.list_(number)),
        "meta": pa.array([{"answer": value} for value in values], pa.struct([("answer", number)])),
        "score": pa.array(values, number),
    }
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table(columns), path)
    folder = tmp_path / "set"
    datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache")).save_to_disk(str(folder))
    for data in (path, folder):
        for column in ("references.0", "meta.answer", "score"):
            found = load_sequences(str(data), columns=Columns(references=(column,)))
            assert [one.references for one in found] == [("0.1",), ("2.7",)], (data.name, column)


@pytest.mark.parametrize(("name", "kind"), [("r.jsonl", "JSONL"), ("r.csv", "CSV"), ("r.parquet.gz", "PARQUET")])
def test_reference_files_are_text_too(tmp_path: Path, name: str, kind: str) -> None:
    source, target = write(tmp_path / "a.txt", "1\n2\n"), write(tmp_path / name, "1\n2\n")
    with pytest.raises(InputError, match=rf"needs plain text with one reference per line, not .* \({kind}\)"):
        load_sequences(source, reference_files=(target,))


def test_quotes_after_a_space_are_text_and_said_to_be(tmp_path: Path) -> None:
    file = write(tmp_path / "d.csv", 'prompt,references\n"What?", "Rome"\n"Who?","Bob"\n')
    read = read_data(file)
    assert [one.references for one in read.sequences] == [(' "Rome"',), ("Bob",)]
    [line] = read.lines()
    assert "quotation marks after a space are part of the text" in line and "d.csv line 2" in line


def test_any_limit_is_a_limit(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", jsonl(ROWS))
    assert load_sequences(file, limit=10**30) == SEQUENCES


def test_a_line_that_no_format_reads_is_not_called_a_document(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", '{"prompt": "a", "prompt": "b"}\n')
    with pytest.raises(InputError) as caught:
        load_sequences(file)
    assert "--format json" not in str(caught.value)
