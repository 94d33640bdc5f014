"""Allocations as the labels of Dr.LLM (Heakl et al. 2025, arXiv 2510.12773)."""

from collections.abc import Sequence as Seq
from itertools import chain, repeat

from oracle.types import Allocation

__all__ = ["labels_of", "path_of"]

REPEAT = 2
"""The highest label: a layer runs twice."""


def labels_of(allocation: Seq[int], layers: int) -> list[int] | None:
    """An allocation as Dr.LLM writes it: per layer 0 (skipped), 1 (run) or 2 (run twice in a row).

    Returns:
        L labels; None where they cannot say it: another order, or more than two runs.
    """
    counts = [0] * layers
    for layer in allocation:
        counts[layer] += 1
    fits = max(counts, default=0) <= REPEAT and path_of(counts) == tuple(allocation)
    return counts if fits else None


def path_of(labels: Seq[int]) -> Allocation:
    """The allocation that labels stand for."""
    return tuple(chain.from_iterable(repeat(layer, label) for layer, label in enumerate(labels)))
