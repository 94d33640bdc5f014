"""Untrusted text, made fit for a terminal."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest_hint", "printable"]


def printable(text: str) -> str:
    """The text on one line: control and format characters, line ends among them, become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """`"; nearest: X"` with the known name closest to `name` but for case, or an empty string if none is close."""
    lowered = {one.lower(): one for one in reversed(list(known))}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"; nearest: {lowered[found[0]]!r}" if found else ""
