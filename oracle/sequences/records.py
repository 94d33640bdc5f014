"""Rows of a data set, lookup of their values by path, and the decisions made while rows are read."""

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["Decisions", "LabelName", "Record", "UnusableRow", "as_text", "is_missing"]

_LISTED_COLUMNS = 20
_LISTED_DEPTH = 4
_ABSENT = object()
_EXACT_INTEGERS = 2**53


class UnusableRow(InputError):  # noqa: N818 - named for what it is about
    """A row that lacks what a sequence needs; `--skip-unusable` leaves it out and counts it by reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Decisions:
    """What was decided by rule while data was read: each rule with its number of rows and the first place."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, rule: str, first: str = "", rows: int = 1) -> None:
        """Counts a rule for some rows; `first` names the place, and what was read there."""
        self._rows[rule] = self._rows.get(rule, 0) + rows
        self._first.setdefault(rule, first)

    def to_list(self) -> list[dict[str, object]]:
        """One entry per rule: `rule`, `rows` (0 if it concerns the whole file) and `first`."""
        return [{"rule": rule, "rows": rows, "first": self._first[rule]} for rule, rows in self._rows.items()]


class LabelName(str):
    """Name of a class label, where the data stores a number.

    Attributes:
        number: the stored number, from 0.
    """

    number: int

    def __new__(cls, name: str, number: int) -> "LabelName":
        """The name as a text, with its number."""
        self = super().__new__(cls, name)
        self.number = number
        return self


def _resolve(value: object, path: str) -> Iterator[object]:
    """The values at `path`, those under the longest literal keys first."""
    if isinstance(value, Mapping):
        cut = len(path)
        while cut >= 0:
            if path[:cut] in value:
                inner = value[path[:cut]]
                if cut == len(path):
                    yield inner
                else:
                    yield from _resolve(inner, path[cut + 1 :])
            cut = path.rfind(".", 0, cut)
    elif isinstance(value, list):
        head, dot, rest = path.partition(".")
        if head.isascii() and head.isdigit() and len(head) < 10 and int(head) < len(value):
            inner = value[int(head)]
            if dot:
                yield from _resolve(inner, rest)
            else:
                yield inner


def _paths(value: object, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Paths of the values of a row, to a limited depth; for a list of dicts, those of its first item."""
    if isinstance(value, Mapping) and depth < _LISTED_DEPTH:
        for key, inner in value.items():
            yield from _paths(inner, f"{prefix}.{key}" if depth else str(key), depth + 1)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping) and depth < _LISTED_DEPTH:
        yield from _paths(value[0], f"{prefix}.0", depth + 1)
    else:
        yield prefix


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a data set.

    Attributes:
        where: file and line, or data set and row, for error messages.
        fields: values by column.
        cells: whether every field is a text cell (CSV, TSV), where lists can only be written out as text.
    """

    where: str
    fields: Mapping[str, object]
    cells: bool = False

    @property
    def columns(self) -> str:
        """Paths of the values, for messages: the first ones."""
        known = list(_paths(self.fields))
        return ", ".join(known[:_LISTED_COLUMNS]) + (", ..." if len(known) > _LISTED_COLUMNS else "")

    def get(self, path: str) -> object:
        """The value at a path; None if there is none."""
        return next(_resolve(self.fields, path), None)

    def has(self, path: str) -> bool:
        """Whether there is a value, perhaps null, at a path."""
        return next(_resolve(self.fields, path), _ABSENT) is not _ABSENT

    def require(self, path: str, option: str) -> object:
        """The value at a path.

        Args:
            path: keys and indices, joined by dots.
            option: command line option that names another column.

        Raises:
            UnusableRow: if the row has no such column; lists the available ones and the nearest.
        """
        found = next(_resolve(self.fields, path), _ABSENT)
        if found is _ABSENT:
            raise UnusableRow(
                f"{self.where} has no column {path!r}: name another with {option}; available columns: "
                f"{self.columns or '(none)'}{nearest_hint(path, list(_paths(self.fields)))}",
                f"no column {path!r}",
            )
        return found


def is_missing(value: object) -> bool:
    """Whether a value is missing: null, or the NaN of a table's empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_whole(value: float) -> bool:
    """Whether a number in floating point is a whole one that floating point represents exactly."""
    return math.isfinite(value) and value == int(value) and abs(value) < _EXACT_INTEGERS


def as_text(value: object, what: str, where: str, option: str, *, whole: bool = False) -> str:
    """A text unchanged; a number or Boolean as in JSON, a date or time in ISO 8601.

    Args:
        value: the value.
        what: what it is, for the error message.
        where: its row.
        option: command line option that names another column.
        whole: whether to write 18.0 as 18, and a time stamp at midnight as a date.

    Raises:
        UnusableRow: if it is null, of another type, or text that no encoding can write.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and whole and is_whole(value):
        return str(int(value))
    if isinstance(value, int) or (isinstance(value, float | Decimal) and math.isfinite(value)):
        return str(value)
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if whole else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if not isinstance(value, str):
        endless = isinstance(value, float | Decimal) and math.isinf(value)
        kind = "null" if is_missing(value) else "an infinite number" if endless else type(value).__name__
        raise UnusableRow(
            f"{where}: {what} must be text, not {kind}: name the column that holds the text with {option}",
            f"{what} is {kind}",
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnusableRow(
            f"{where}: {what} has half a surrogate pair at character {error.start}, which is not text: "
            "correct or remove the row",
            f"{what} is not text",
        ) from None
    return str(value)
