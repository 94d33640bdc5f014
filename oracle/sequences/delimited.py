"""Records from CSV (quoted cells, a separator that is found in the file) and TSV (tabs and line ends, no quotes)."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oracle.errors import InputError
from oracle.sequences.records import Decisions, Record

__all__ = ["read_csv", "read_tsv"]

SEPARATORS = ",;\t|"
"""Separators that are looked for, the usual one first."""

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The rows of a delimited file: the header first, each with its line; and where and why reading them failed."""

    rows: list[tuple[int, list[str]]]
    error: InputError | None

    @property
    def header(self) -> list[str]:
        return self.rows[0][1] if self.rows else []

    @property
    def consistent(self) -> bool:
        return self.error is None


def read_csv(path: Path, text: str, separator: str | None, wanted: set[str], decisions: Decisions) -> Iterator[Record]:
    """The records of a CSV file with a header line; cells may be quoted with `"` and of any length.

    The separator is the comma, unless only another of `SEPARATORS` splits the header. If several do, it is the one
    under which all rows have as many cells as the header, or else the one whose header has the wanted columns.

    Args:
        path: for error messages.
        text: content of the file.
        separator: None to find it. A first line such as `sep=;`, as Excel writes it, names it too.
        wanted: names of columns that the sequences need.
        decisions: records a separator that is not the comma.

    Raises:
        InputError: if a row has more or fewer cells than the header, the quotes do not match, or several separators
            fit.
    """
    first, _, rest = text.partition("\n")
    skipped = 0
    if separator is None and (declared := first.strip()).startswith("sep=") and len(declared) == 5:
        separator, text, skipped = declared[4], rest, 1
    if separator is None:
        separator, table = _found(path, text, wanted)
        if separator != ",":
            decisions.add(f"the cells are separated by {_name(separator)}, not by comma (--separator decides)", rows=0)
    else:
        table = _parse(path, text, separator, skipped)
    for line, cells in table.rows:
        if any(len(bare := cell.lstrip(" ")) > 1 and bare != cell and bare[0] == '"' == bare[-1] for cell in cells):
            decisions.add(
                "quotation marks after a space are part of the text, as quotes must follow the separator directly",
                f"{path} line {line}",
            )
    yield from _records(path, table)


def read_tsv(path: Path, text: str, decisions: Decisions) -> Iterator[Record]:
    """The records of a TSV file with a header line: tabs separate cells, line feeds rows; quotation marks are text.

    Raises:
        InputError: if a row has more or fewer cells than the header.
    """
    rows, error = [], None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        cells = line.split("\t")
        rows.append((number, cells))
        error = error or _unequal(path, number, cells, rows[0][1], "a line break or tab inside a cell needs CSV")
        if number > 1 and any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells):
            decisions.add(
                "quotation marks around a cell are part of its text, as TSV has no quotes (--format csv --separator "
                "tab reads them as quotes)",
                f"{path} line {number}",
            )
    yield from _records(path, _Table(rows=rows, error=error))


def _found(path: Path, text: str, wanted: set[str]) -> tuple[str, _Table]:
    splitting = [separator for separator in SEPARATORS if len(_header(text, separator)) > 1]
    if not splitting:
        return ",", _parse(path, text, ",")
    split = {separator: _parse(path, text, separator) for separator in splitting}
    fitting = {separator: table for separator, table in split.items() if table.consistent} or split
    if len(fitting) > 1:
        named = {key: table for key, table in fitting.items() if wanted & set(table.header)}
        fitting = named or fitting
    if len(fitting) > 1 and all(table.consistent for table in fitting.values()):
        shown = "; ".join(f"{_name(key)}: {', '.join(map(repr, table.header))}" for key, table in fitting.items())
        raise InputError(f"{path} can be split in several ways ({shown}): name the right one with --separator")
    return next(iter(fitting.items()))


def _name(separator: str) -> str:
    return _NAMES.get(separator, repr(separator))


@contextmanager
def _any_length() -> Iterator[None]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(text: str, separator: str) -> list[str]:
    """The first row under a separator; empty if it cannot be read."""
    try:
        with _any_length():
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
            return next((cells for cells in rows if cells), [])
    except csv.Error:
        return []


def _parse(path: Path, text: str, separator: str, skipped: int = 0) -> _Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    with _any_length():
        try:
            for cells in reader:
                number, line = line + skipped, reader.line_num + 1
                if not cells:
                    continue
                rows.append((number, cells))
                remedy = "quote cells that contain the separator or a line break, or name the right --separator"
                if error := _unequal(path, number, cells, rows[0][1], remedy):
                    return _Table(rows=rows, error=error)
        except csv.Error as error:
            return _Table(
                rows=rows,
                error=InputError(
                    f"{path} line {line + skipped} is not valid CSV: {error}: double the quotation marks inside "
                    "quoted cells, or give JSONL"
                ),
            )
    return _Table(rows=rows, error=None)


def _unequal(path: Path, line: int, cells: list[str], header: list[str], remedy: str) -> InputError | None:
    if len(cells) == len(header):
        return None
    return InputError(f"{path} line {line} must have {len(header)} cells like the header, not {len(cells)}: {remedy}")


def _records(path: Path, table: _Table) -> Iterator[Record]:
    if table.rows:
        line, names = table.rows[0]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(
                f"{path} line {line}: column names must differ, but {repeated[0]!r} occurs twice: rename one"
            )
    if table.error:
        raise table.error
    for line, cells in table.rows[1:]:
        fields = dict(zip(table.header, cells, strict=True))
        yield Record(where=f"{path} line {line}", fields=fields, cells=True)
