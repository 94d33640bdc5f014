"""Rows of a data set, and lookup of their values by path."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["Record", "as_text", "is_missing"]

_LISTED_COLUMNS = 20
_LISTED_DEPTH = 4
_ABSENT = object()


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
        cells: whether every field is a text cell (CSV), where lists are JSON text.
    """

    where: str
    fields: Mapping[str, object]
    cells: bool = False

    def get(self, path: str) -> object:
        """The value at a path; None if there is none."""
        return next(_resolve(self.fields, path), None)

    def require(self, path: str) -> object:
        """The value at a path.

        Raises:
            InputError: if the row has no such column; lists the available ones and the nearest.
        """
        found = next(_resolve(self.fields, path), _ABSENT)
        if found is _ABSENT:
            known = list(_paths(self.fields))
            listed = ", ".join(known[:_LISTED_COLUMNS]) + (", ..." if len(known) > _LISTED_COLUMNS else "")
            raise InputError(
                f"{self.where} has no column {path!r}; available columns: "
                f"{listed or '(none)'}{nearest_hint(path, known)}"
            )
        return found


def is_missing(value: object) -> bool:
    """Whether a value is missing: null, or the NaN of a table's empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: object, what: str, where: str) -> str:
    """A string unchanged, a number or Boolean as in JSON.

    Raises:
        InputError: if it is of another type, or text that no encoding can write.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise InputError(f"{where}: {what} must be text, not {kind}: name the column that holds the text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {what} has half a surrogate pair at character {error.start}, which is not text: "
            "correct or remove the row"
        ) from None
    return value
