"""Rows of a data set as they were read, and looking up what they hold."""

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
    """What `path` leads to, the reading with the longest literal keys first."""
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
    """Paths of what a row holds, to some depth; of a list of dicts, those of its first item."""
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
        fields: what the row holds, by column.
        cells: whether every field is a text cell (CSV), so that a list comes as JSON text.
    """

    where: str
    fields: Mapping[str, object]
    cells: bool = False

    def get(self, path: str) -> object:
        """What a path leads to; None if there is nothing."""
        return next(_resolve(self.fields, path), None)

    def require(self, path: str) -> object:
        """What a path leads to.

        Raises:
            InputError: the row has no such column; lists those it has and the nearest.
        """
        found = next(_resolve(self.fields, path), _ABSENT)
        if found is _ABSENT:
            known = list(_paths(self.fields))
            listed = ", ".join(known[:_LISTED_COLUMNS]) + (", ..." if len(known) > _LISTED_COLUMNS else "")
            raise InputError(
                f"{self.where} has no column {path!r}: name one that it has: "
                f"{listed or '(none)'}{nearest_hint(path, known)}"
            )
        return found


def is_missing(value: object) -> bool:
    """Whether a value stands for nothing: null, or the not-a-number of a table's empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: object, what: str, where: str) -> str:
    """A string as it is, a number or truth value as JSON would write it.

    Raises:
        InputError: it is something else, or text that no encoding can write.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise InputError(f"{where}: {what} must be text, came {kind}: name the column that holds the text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {what} has half a surrogate pair at character {error.start}, which is no text: "
            "correct or remove the row"
        ) from None
    return value
