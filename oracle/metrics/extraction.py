"""Extraction of the answer from a text, as the filters of lm-evaluation-harness do, before text metrics compare it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["EXTRACTIONS", "Extraction", "answer_in"]

_NUMBER = r"-?\$?[0-9][0-9.,]*|-?\$?\.[0-9]+"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A rule that takes the answer out of a text.

    Attributes:
        name: as the user wrote it.
        pattern: regular expression; its first group that matched is the answer, or the whole match without groups.
        last: whether the last match counts, not the first.
        number: whether the answer is a number, of which `$`, `,` and a final full stop are dropped.
        help: one line for listings.
    """

    name: str
    pattern: str
    last: bool = False
    number: bool = False
    help: str = ""

    @classmethod
    def parse(cls, text: str) -> "Extraction":
        """The named extraction, or that of a regular expression, of which `last:` takes the last match.

        Raises:
            InputError: if it is neither a name nor a valid expression with anything variable in it.
        """
        if text in EXTRACTIONS:
            return EXTRACTIONS[text]
        pattern = text.removeprefix("last:")
        known = "; ".join(f"{name}: {one.help}" for name, one in EXTRACTIONS.items())
        if not re.search(r"[\\\[(.*+?|]", pattern):
            hint = nearest_hint(text, EXTRACTIONS)
            raise InputError(f"--extract needs a regular expression or a name ({known}), not {text!r}{hint}")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"--extract needs a valid regular expression, not {text!r}: {error}") from None
        return cls(name=text, pattern=pattern, last=text.startswith("last:"))

    def apply(self, text: str) -> str:
        """The answer in a text; empty if there is none."""
        return _apply(self, text)


@lru_cache(maxsize=8192)
def _apply(extraction: Extraction, text: str) -> str:
    matches = list(re.finditer(extraction.pattern, text))
    if not matches:
        return ""
    match = matches[-1 if extraction.last else 0]
    found = next((group for group in match.groups() if group), "") if match.groups() else match[0]
    found = found.strip()
    return found.replace("$", "").replace(",", "").rstrip(".") if extraction.number else found


def answer_in(text: str, extract: str | None) -> str:
    """The part of an output that text metrics compare: what is extracted, or all of it without an extraction."""
    return text if extract is None else Extraction.parse(extract).apply(text)


_NAMED = (
    Extraction(
        name="gsm8k",
        pattern=r"#### (\-?[0-9\.\,]+)",
        number=True,
        help="the number after '####', which outputs must contain too (strict-match of lm-evaluation-harness)",
    ),
    Extraction(
        name="number",
        pattern=_NUMBER,
        last=True,
        number=True,
        help="the last number (flexible-extract of lm-evaluation-harness)",
    ),
    Extraction(
        name="boxed",
        pattern=r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}",
        last=True,
        help=r"what the last \boxed{} holds",
    ),
    Extraction(
        name="letter",
        pattern=r"(?i:answer(?: is)?:?\s*)\(?([A-J])\b|\(([A-J])\)|^\s*([A-J])(?:[).:]|\s*$)",
        help="the letter of a choice: after 'answer', in brackets, or alone at the start",
    ),
)

EXTRACTIONS = {one.name: one for one in _NAMED}
"""The named extractions."""
