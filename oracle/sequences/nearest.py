"""The known name that a mistyped one is closest to."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest_hint"]


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """`"; nearest: X"` with the known name closest to `name`, or an empty string if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; nearest: {found[0]!r}" if found else ""
