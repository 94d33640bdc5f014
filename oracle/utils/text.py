"""Text for messages: untrusted text made printable, and suggestions for misspelled names."""

import difflib
import re
from collections.abc import Iterable

__all__ = ["nearest_hint", "nearest_names", "one_of", "printable", "shown", "spreadsheet_text"]

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that change the direction of text, and halves of surrogate pairs; not tab and line feed."""

FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""Starts of a formula in a spreadsheet, in normal and full width."""

CUTOFF = 0.6
"""Least similarity of a suggestion, from 0 to 1 (`difflib`): below, it is a guess rather than a misspelling."""


def printable(text: str) -> str:
    """The text on one line, with control and format characters, including line ends, replaced by spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def shown(setting: object) -> str:
    """A setting's value as a user knows it: `on` and `off`, `none`, the items of a list one after the other."""
    if setting is None or setting == () or setting == []:
        return "none"
    if isinstance(setting, bool):
        return "on" if setting else "off"
    return printable(", ".join(map(str, setting)) if isinstance(setting, list | tuple) else str(setting))


def spreadsheet_text(text: str) -> str:
    """The text for a cell of CSV: control characters as escapes, and an apostrophe before what would run as a formula.

    A text that is a plain number stays as it is.
    """
    safe = CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    if not safe.lstrip().startswith(FORMULA):
        return safe
    try:
        float(safe)
    except ValueError:
        return f"'{safe}"
    return safe


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """`"; nearest: X"` with the known name closest to `name`, ignoring case; an empty string if none is close."""
    return "".join(f"; nearest: {one!r}" for one in nearest_names(name, known))


def one_of(known: Iterable[str], found: object) -> str:
    """`"one of A, B, not 'C'"` with the nearest, for a message about a name that is none of those known."""
    names = list(known)
    return f"one of {', '.join(names)}, not '{found}'{nearest_hint(str(found), names)}"


def nearest_names(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """At most `count` known names that are close to `name`, ignoring case, the closest first."""
    lowered = {one.lower(): one for one in reversed(list(known))}
    return [lowered[found] for found in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=CUTOFF)]
