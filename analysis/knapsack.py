"""The multiple-choice knapsack: one item of each sequence, most total quality under a total cost.

Two solvers, both giving every capacity at once. The exact one is a dynamic programme over the integer
total cost, vectorised over the cost. The other one takes the upper concave envelope of each sequence's
items and buys segments by falling efficiency (the linear relaxation; Sinha and Zoltners 1979): its
breakpoints are optimal at their own total cost, and between them the best value is less than one
segment higher.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.grouping import FloatArray, IntArray

__all__ = ["Envelope", "Solution", "envelope", "solve_exact", "solve_relaxed", "undominated", "work"]

ChoiceArray = NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Undominated totals.

    Attributes:
        cost: total costs, rising strictly.
        quality: most total quality at each, rising strictly.
        choose: costs per sequence, shape (N,), that realise the point of a given index.
        gap: how much higher the best total quality can be at a capacity between two points; 0 if exact.
    """

    cost: IntArray
    quality: FloatArray
    choose: Callable[[int], IntArray]
    gap: float


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Upper concave envelopes cut into segments, the most efficient first.

    Attributes:
        base_cost: cost of each sequence's cheapest item.
        base_quality: its quality.
        sequence: sequence that a segment belongs to.
        cost: its cost, at least 1.
        gain: its gain of quality, positive.
    """

    base_cost: IntArray
    base_quality: FloatArray
    sequence: IntArray
    cost: IntArray
    gain: FloatArray


def undominated(quality_NK: FloatArray) -> NDArray[np.bool_]:
    """Items that no item of the same sequence matches at a lower cost; -inf marks no item."""
    best_before = np.maximum.accumulate(quality_NK, axis=1)[:, :-1]
    return np.column_stack([quality_NK[:, 0] > -np.inf, quality_NK[:, 1:] > best_before])


def work(quality_NK: FloatArray) -> int:
    """Cell updates of the exact solver: summed over sequences, items times reachable totals before them."""
    keep_NK = undominated(quality_NK)
    span_N = keep_NK.shape[1] - 1 - keep_NK[:, ::-1].argmax(axis=1) - keep_NK.argmax(axis=1)
    width_N = np.cumsum(span_N) - span_N + 1
    return int(width_N @ keep_NK.sum(axis=1))


def solve_exact(quality_NK: FloatArray) -> Solution:
    """Optimal values at every capacity, by dynamic programming.

    Of equally good choices at a total cost, the last sequence gets its cheapest one, then the last but one,
    and so on.

    Args:
        quality_NK: quality of each sequence's item of cost k, -inf where it has none.
    """
    keep_NK = undominated(quality_NK)
    base_N = keep_NK.argmax(axis=1)
    total = np.zeros(1)
    choices: list[ChoiceArray] = []
    for quality_K, keep_K, base in zip(quality_NK, keep_NK, base_N, strict=True):
        costs = np.flatnonzero(keep_K)
        extra = costs - base
        best = np.full(len(total) + extra[-1], -np.inf)
        choice = np.zeros(len(best), dtype=np.min_scalar_type(quality_NK.shape[1]))
        for k, quality in zip(extra, quality_K[costs], strict=True):
            here = slice(k, k + len(total))
            candidate = total + quality
            better = candidate > best[here]
            np.copyto(best[here], candidate, where=better)
            np.copyto(choice[here], k, where=better, casting="unsafe")
        total = best
        choices.append(choice)
    points = np.flatnonzero(undominated(total[None])[0])
    return Solution(
        cost=points + base_N.sum(),
        quality=total[points],
        choose=partial(_backtrack, points, choices, base_N),
        gap=0.0,
    )


def _backtrack(points: IntArray, choices: list[ChoiceArray], base_N: IntArray, index: int) -> IntArray:
    left = int(points[index])
    cost_N = base_N.astype(np.int64)
    for n in range(len(choices) - 1, -1, -1):
        extra = int(choices[n][left])
        cost_N[n] += extra
        left -= extra
    assert left == 0, "every total was built from its choices"
    return cost_N


def envelope(quality_NK: FloatArray) -> Envelope:
    """Upper concave envelope of each sequence's items, by gift wrapping over all sequences at once."""
    N, K = quality_NK.shape
    at_N = (quality_NK > -np.inf).argmax(axis=1)
    base_N, limit_N, all_N = at_N, np.full(N, np.inf), np.arange(N)
    none = np.empty(0, dtype=np.int64)
    parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = [(none, none, np.empty(0), np.empty(0))]
    while True:
        distance_NK = np.arange(K) - at_N[:, None]
        rise_NK = quality_NK - quality_NK[all_N, at_N][:, None]
        slope_NK = np.where(distance_NK > 0, rise_NK / np.maximum(distance_NK, 1), -np.inf)
        to_N = K - 1 - slope_NK[:, ::-1].argmax(axis=1)  # the farthest of equally steep ones
        moves = slope_NK[all_N, to_N] > 0
        if not moves.any():
            break
        # Rounding may make a collinear segment look steeper than the one before it.
        limit_N = np.minimum(limit_N, slope_NK[all_N, to_N])
        who = np.flatnonzero(moves)
        parts.append((who, distance_NK[who, to_N[who]], rise_NK[who, to_N[who]], limit_N[who]))
        at_N = np.where(moves, to_N, at_N)
    sequence_S, cost_S, gain_S, slope_S = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((np.arange(len(slope_S)), sequence_S, -slope_S))
    return Envelope(
        base_cost=base_N,
        base_quality=quality_NK[all_N, base_N],
        sequence=sequence_S[order],
        cost=cost_S[order],
        gain=gain_S[order],
    )


def solve_relaxed(quality_NK: FloatArray) -> Solution:
    """Breakpoints of the linear relaxation, each of them integral; `gap` is the largest segment's gain."""
    hull = envelope(quality_NK)
    return Solution(
        cost=np.cumsum(np.append(hull.base_cost.sum(), hull.cost)),
        quality=np.cumsum(np.append(hull.base_quality.sum(), hull.gain)),
        choose=partial(_bought, hull),
        gap=float(hull.gain.max(initial=0.0)),
    )


def _bought(hull: Envelope, index: int) -> IntArray:
    extra_N = np.bincount(hull.sequence[:index], hull.cost[:index], minlength=len(hull.base_cost))
    return hull.base_cost + extra_N.astype(np.int64)
