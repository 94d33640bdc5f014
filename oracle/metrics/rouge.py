"""ROUGE-N and ROUGE-L F-measures (Lin 2004), equal to package rouge-score without stemming.

A search scores every outcome, mostly against the same few references, so values that depend on one text (words, n-gram
counts, bit masks) are cached, and the longest common subsequence is computed bit-parallel instead of by a table.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["lcs_column", "lcs_length", "rouge_l", "rouge_n", "words"]

_WORD = re.compile(r"[a-z0-9]+")

# Number of texts. Outputs are scored once or a few times; references stay in use.
_CACHED_TEXTS = 8192

NGrams = Mapping[tuple[str, ...], int]


@lru_cache(maxsize=_CACHED_TEXTS)
def words(text: str) -> tuple[str, ...]:
    """The words of a text: lower-cased, split at everything but `a-z` and `0-9`."""
    return tuple(_WORD.findall(text.lower()))


@lru_cache(maxsize=_CACHED_TEXTS)
def _ngrams(text: str, n: int) -> NGrams:
    tokens = words(text)
    return Counter(tokens[i : i + n] for i in range(len(tokens) - n + 1))


@lru_cache(maxsize=_CACHED_TEXTS)
def _masks(tokens: tuple[str, ...]) -> Mapping[str, int]:
    """Word -> its positions in `tokens`, as set bits."""
    masks: dict[str, int] = {}
    for position, token in enumerate(tokens):
        masks[token] = masks.get(token, 0) | 1 << position
    return masks


def lcs_length(reference: tuple[str, ...], output: tuple[str, ...]) -> int:
    """Length of the longest common subsequence, one big-integer step per word of `output`.

    The bit-vector recurrence V' = (V + (V & M)) | (V & ~M) of Crochemore et al. (2001), "A fast and practical
    bit-vector algorithm for the longest common subsequence problem", in the form of Hyyrö (2004), "Bit-parallel
    LCS-length computation revisited": a zero bit of V marks a row at which the column of the table increases.
    """
    return len(reference) - lcs_column(reference, output).bit_count()


def lcs_column(reference: tuple[str, ...], output: tuple[str, ...]) -> int:
    """Last column of the table of `lcs_length`: bit i is 0 where word i of the reference increases it."""
    masks = _masks(reference)
    ones = (1 << len(reference)) - 1
    column = ones
    for token in output:
        if mask := masks.get(token):
            matched = column & mask
            column = (column + matched | column - matched) & ones
    return column


def _f_measure(overlap: int, output_size: int, reference_size: int) -> float:
    # Same order of operations as rouge-score, so that the floats are identical.
    if overlap == 0:
        return 0.0
    precision = overlap / output_size
    recall = overlap / reference_size
    return 2 * precision * recall / (precision + recall)


def rouge_n(text: str, reference: str, n: int) -> float:
    """F-measure of the n-grams of words shared with a reference (Lin 2004, section 2), in [0, 1]."""
    ours, theirs = _ngrams(text, n), _ngrams(reference, n)
    overlap = sum(min(count, theirs[ngram]) for ngram, count in ours.items() if ngram in theirs)
    return _f_measure(overlap, sum(ours.values()), sum(theirs.values()))


def rouge_l(text: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, section 3.1), in [0, 1]."""
    ours, theirs = words(text), words(reference)
    return _f_measure(lcs_length(theirs, ours), len(ours), len(theirs))
