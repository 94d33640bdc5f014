"""Scores of the answer in a text: numbers, letters of choices, words; all in [0, 1], computed on request."""

import re
import string
from collections import Counter
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from oracle.errors import InputError, door
from oracle.metrics.extraction import EXTRACTIONS

__all__ = ["choice_letter", "contains", "numeric", "rouge_score_of", "token_f1"]

_LETTER = re.compile(r"\(?([A-J])\)?(?:[).:].*)?", re.DOTALL)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def numeric(text: str, references: tuple[str, ...]) -> float:
    """1 if the last number of a text equals that of a reference, 1,000 and 1000.0 alike, else 0.

    Where the package math-verify is installed, answers that it verifies (fractions, LaTeX, units) are right too; the
    manifest of a run names its version.
    """
    ours = _last_number(text)
    if ours is not None and any(ours == _last_number(reference) for reference in references):
        return 1.0
    return float(any(_verified(text, reference) for reference in references))


@lru_cache(maxsize=8192)
def _last_number(text: str) -> Decimal | None:
    found = EXTRACTIONS["number"].apply(text)
    try:
        return Decimal(found) if found else None
    except InvalidOperation:  # such as 1.2.3
        return None


@lru_cache(maxsize=8192)
def _verified(text: str, reference: str) -> bool:
    try:
        from math_verify import parse, verify
    except ImportError:
        return False
    with door("verifying an answer with math-verify", "choose another --criterion, or remove the package"):
        return bool(verify(parse(reference), parse(text)))


def choice_letter(text: str, references: tuple[str, ...]) -> float:
    """1 if the letter that a text chooses (after 'answer', in brackets, or at its start) is a reference's, else 0.

    A reference is a letter, or begins with one: `B`, `(B)`, `B. Paris`.
    """
    ours = EXTRACTIONS["letter"].apply(text)
    letters = {match[1] for reference in references if (match := _LETTER.fullmatch(reference.strip()))}
    return float(ours != "" and ours in letters)


def contains(text: str, references: tuple[str, ...]) -> float:
    """1 if a text contains a reference, up to case and white space, else 0."""
    ours = _spaced(text)
    return float(any(reference and reference in ours for reference in map(_spaced, references)))


@lru_cache(maxsize=8192)
def _spaced(text: str) -> str:
    return " ".join(text.casefold().split())


def token_f1(text: str, references: tuple[str, ...]) -> float:
    """F-measure of shared words without articles and punctuation, best reference.

    The F1 of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250): words are separated by white space after lower-casing and
    removing punctuation and articles. If either text has none, 1 if neither has, as in SQuAD 2.0.
    """
    return max(_f1(_squad_words(text), _squad_words(reference)) for reference in references)


@lru_cache(maxsize=8192)
def _squad_words(text: str) -> tuple[str, ...]:
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(ours: tuple[str, ...], theirs: tuple[str, ...]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def rouge_score_of(text: str, references: tuple[str, ...], *, kind: str, stemmed: bool) -> float:
    """F-measure by package rouge-score, best reference.

    Args:
        text: the output.
        references: right answers.
        kind: `rougeL`, or `rougeLsum`: the union of longest common subsequences over lines (Lin 2004, section 3.2).
        stemmed: whether words are stemmed by Porter's rules.

    Raises:
        InputError: if the package is not installed.
    """
    return float(_scorer(kind, stemmed).score_multi(references, text)[kind].fmeasure)


@lru_cache(maxsize=4)
def _scorer(kind: str, stemmed: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InputError(
            f"metric {kind}{'-stemmed' if stemmed else ''} needs the package rouge-score; install it with: "
            "pip install 'layer-oracle[rouge]'"
        ) from error
    return RougeScorer([kind], use_stemmer=stemmed)
