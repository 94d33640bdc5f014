"""Records from JSONL, CSV, TSV, Parquet and plain text files."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.sequences.records import Record

__all__ = ["READERS", "read_aligned", "read_file"]


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}: make it readable, or name another") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Positions exclude a byte order mark, as does error.object.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line} must be UTF-8, but has byte 0x{error.object[error.start]:02x} "
            f"({error.reason}): save the file as UTF-8"
        ) from None


def _lines(path: Path) -> list[str]:
    """The lines of a text file, split at line feeds only, as tools for aligned files do."""
    lines = _decode(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise InputError(f"{where} must be one JSON object: {reason}: correct the line") from None
        if not isinstance(fields, dict):
            raise InputError(f"{where} must be one JSON object, not {type(fields).__name__}: write one object per line")
        yield Record(where=where, fields=fields)


def _read_delimited(path: Path, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(_decode(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where = f"{path} line {line}"
            line = reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _checked_header(cells, where)
            elif len(cells) != len(header):
                raise InputError(
                    f"{where} must have {len(header)} cells like the header, not {len(cells)}: "
                    "quote cells that contain the delimiter or a line break"
                )
            else:
                yield Record(where=where, fields=dict(zip(header, cells, strict=True)), cells=True)
    except csv.Error as error:
        raise InputError(f"{path} line {line} is not valid CSV: {error}: correct the quotes, or give JSONL") from None


def _checked_header(names: list[str], where: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{where}: column names must differ, but {repeated[0]!r} occurs twice: rename one")
    return names


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        with pq.ParquetFile(path) as file:
            rows = file.read().to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} must be a Parquet file: {reason}: write it again") from None
    for number, fields in enumerate(rows):
        yield Record(where=f"{path} row {number}", fields=fields)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": partial(_read_delimited, delimiter=","),
    ".tsv": partial(_read_delimited, delimiter="\t"),
    ".parquet": _read_parquet,
}


def read_file(path: Path) -> Iterator[Record]:
    """The records of a file, read according to its suffix; other suffixes are plain text, one prompt per line.

    JSONL (`.jsonl`, `.ndjson`, `.json`): one object per line, blank lines skipped. CSV and TSV: a header line, cells
    quoted with `"`. Parquet: nested columns allowed. Text files are UTF-8.

    Raises:
        InputError: if the file cannot be read; names the line or row and the reason.
    """
    reader = READERS.get(path.suffix.lower())
    return reader(path) if reader else read_aligned(path, ())


def read_aligned(path: Path, references: tuple[Path, ...]) -> Iterator[Record]:
    """The records of a plain text file with one prompt per line, and of reference files aligned with it.

    Args:
        path: the prompts: column `prompt`.
        references: files with the same number of lines: column `references` has one text from each.

    Raises:
        InputError: if a file cannot be read, or the numbers of lines differ.
    """
    prompts = _lines(path)
    aligned = [_lines(reference) for reference in references]
    for reference, lines in zip(references, aligned, strict=True):
        if len(lines) != len(prompts):
            raise InputError(
                f"{path} and {reference} must have the same number of lines, not {len(prompts)} and {len(lines)}: "
                "align them line by line"
            )
    for number, prompt in enumerate(prompts):
        texts = [lines[number] for lines in aligned]
        yield Record(where=f"{path} line {number + 1}", fields={"prompt": prompt, "references": texts})
