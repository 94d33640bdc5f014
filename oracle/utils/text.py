"""Text for messages: untrusted text made printable, and suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest_hint", "printable"]

CUTOFF = 0.6
"""Least similarity of a suggestion, from 0 to 1 (`difflib`): below, it is a guess rather than a misspelling."""


def printable(text: str) -> str:
    """The text on one line, with control and format characters, including line ends, replaced by spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """`"; nearest: X"` with the known name closest to `name`, ignoring case; an empty string if none is close."""
    lowered = {one.lower(): one for one in reversed(list(known))}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=CUTOFF)
    return f"; nearest: {lowered[found[0]]!r}" if found else ""
