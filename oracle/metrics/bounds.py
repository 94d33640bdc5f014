"""Upper bounds on the final quality of an unfinished output, by which a search drops outputs without loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Seq

from oracle.metrics.rouge import lcs_column, words
from oracle.metrics.text import exact_prefix

__all__ = ["Bound", "bound_for"]


class Bound(ABC):
    """Upper bound of one metric over all continuations of an unfinished output.

    The engine evaluates it after each token: an output whose bound is below the threshold cannot meet the criterion.
    One instance serves all outputs of a sequence.
    """

    @abstractmethod
    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        """The bound, in units of the metric.

        Args:
            tokens: token ids generated so far.
            text: the same, decoded.
            remaining: maximum number of tokens still to come.
        """


class RougeLBound(Bound):
    """ROUGE-L: at best, the words to come match the rest of the reference from the most favourable position.

    With n words complete, R in the reference and at most J words to come, the F-measure is at most the maximum over i
    of 2 (c_i + j) / (n + j + R), where c_i is the longest common subsequence with the first i words of the reference
    and j = min(R - i, J). The last word may still grow, so it counts as one to come.
    """

    def __init__(self, references: tuple[str, ...], words_per_token: int) -> None:
        self._references = [words(reference) for reference in references]
        self._words_per_token = words_per_token

    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        """See `Bound.upper`."""
        complete = words(text)[:-1]
        coming = 1 + remaining * self._words_per_token
        return max(_rouge_l_upper(reference, complete, coming) for reference in self._references)


def _rouge_l_upper(reference: tuple[str, ...], complete: tuple[str, ...], coming: int) -> float:
    length = len(reference)
    if not length:
        return 0.0
    column = lcs_column(reference, complete)
    best, common = 0.0, 0
    for position in range(length + 1):
        more = min(length - position, coming)
        best = max(best, 2 * (common + more) / (len(complete) + more + length))
        common += not column >> position & 1
    return best


class ExactMatchBound(Bound):
    """Exact match: 1 while the output is a prefix of a reference, else 0."""

    def __init__(self, references: tuple[str, ...]) -> None:
        self._references = references

    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        """See `Bound.upper`."""
        return float(any(exact_prefix(text, reference) for reference in self._references))


class AgreementBound(Bound):
    """Token agreement: all positions to come agree."""

    def __init__(self, full_tokens: Seq[int]) -> None:
        self._full = tuple(full_tokens)

    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        """See `Bound.upper`."""
        same = sum(ours == theirs for ours, theirs in zip(tokens, self._full, strict=False))
        coming = min(remaining, max(0, len(self._full) - len(tokens)))
        return (same + coming) / max(len(tokens), len(self._full))


def bound_for(metric: str, references: tuple[str, ...], full_tokens: Seq[int], words_per_token: int) -> Bound | None:
    """The bound of a metric for one sequence; None for metrics without one.

    Args:
        metric: name of the metric.
        references: references of the sequence.
        full_tokens: token ids of the full model's output.
        words_per_token: maximum number of words that one token of the vocabulary can add.
    """
    if metric == "rougeL":
        return RougeLBound(references, words_per_token)
    if metric == "exact_match":
        return ExactMatchBound(references)
    return AgreementBound(full_tokens) if metric == "agreement" else None
