"""The multiple-choice knapsack: one item of each sequence, most total quality under a total cost.

Two solvers, both giving every capacity at once. One is a dynamic programme over the total cost in whole steps,
vectorised over the cost: exact if all costs are whole multiples of the step, and otherwise off by less than a step a
sequence. The other one takes the upper concave envelope of each sequence's items and buys segments by falling
efficiency (the linear relaxation; Sinha and Zoltners 1979): its breakpoints are optimal at their own total cost, and
between them the best value is less than one segment higher. `analysis.core` closes that gap at a single capacity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.grouping import CostArray, FloatArray, IntArray
from analysis.items import Items

__all__ = ["Envelope", "Solution", "bought", "envelope", "solve_in_steps", "solve_relaxed", "work"]

ChoiceArray = NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Undominated totals.

    Attributes:
        cost: total costs, rising strictly.
        quality: most total quality at each, rising strictly.
        choose: columns of the items, shape (N,), that realise the point of a given index.
        shift: how much less total cost may do for the same total quality; 0 if exact.
    """

    cost: CostArray
    quality: FloatArray
    choose: Callable[[int], IntArray]
    shift: float


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Upper concave envelopes cut into segments, the most efficient first.

    Attributes:
        base: column of each sequence's cheapest item.
        base_cost: its cost.
        base_quality: its quality.
        sequence: sequence that a segment belongs to.
        end: column of the item that it leads to.
        cost: its cost, positive.
        gain: its gain of quality, positive.
        slope: gain over cost, never rising.
    """

    base: IntArray
    base_cost: CostArray
    base_quality: FloatArray
    sequence: IntArray
    end: IntArray
    cost: CostArray
    gain: FloatArray
    slope: FloatArray


def _extra(items: Items, step: float) -> tuple[IntArray, IntArray]:
    """Columns of the cheapest items, and what each item costs more, in steps."""
    base_N = (items.quality_NK > -np.inf).argmax(axis=1)
    extra_NK = (items.cost_NK - items.costs(base_N)[:, None]) / step
    return base_N, np.rint(np.maximum(extra_NK, 0)).astype(np.int64)


def work(items: Items, step: float) -> float:
    """Cell updates of the dynamic programme: summed over sequences, items times reachable totals before them."""
    keep_NK, (_, extra_NK) = items.undominated, _extra(items, step)
    span_N = np.where(keep_NK, extra_NK, 0).max(axis=1).astype(np.float64)
    width_N = np.cumsum(span_N) - span_N + 1
    return float(width_N @ keep_NK.sum(axis=1))


def solve_in_steps(items: Items, step: float) -> Solution:
    """Optimal values at every capacity, by dynamic programming over costs rounded to steps.

    Of equally good choices at a total cost, the last sequence gets its cheapest one, then the last but one,
    and so on.

    Args:
        items: what there is to choose from.
        step: of the costs; with that of the items the solution is exact.
    """
    keep_NK, (base_N, extra_NK) = items.undominated, _extra(items, step)
    total = np.zeros(1)
    choices: list[ChoiceArray] = []
    for quality_K, keep_K, extra_K in zip(items.quality_NK, keep_NK, extra_NK, strict=True):
        columns = np.flatnonzero(keep_K)
        best = np.full(len(total) + extra_K[columns[-1]], -np.inf)
        choice = np.zeros(len(best), dtype=np.min_scalar_type(len(extra_K)))
        for column, extra, quality in zip(columns, extra_K[columns], quality_K[columns], strict=True):
            here = slice(extra, extra + len(total))
            candidate = total + quality
            better = candidate > best[here]
            np.copyto(best[here], candidate, where=better)
            np.copyto(choice[here], column, where=better, casting="unsafe")
        total = best
        choices.append(choice)
    points = np.flatnonzero(np.append(True, total[1:] > np.maximum.accumulate(total)[:-1]))
    exact = step == items.step
    if exact:
        base = items.costs(base_N)
        cost = base.sum() + points * np.asarray(step, dtype=base.dtype)
    else:
        cost = sum(items.cost_NK[n, column_P] for n, column_P in _backtrack(choices, extra_NK, points))
        points, cost = _rising(points, cost, total[points])
    return Solution(
        cost=cost,
        quality=total[points],
        choose=partial(_chosen, choices, extra_NK, points),
        shift=0.0 if exact else len(base_N) * step,
    )


def _rising(points: IntArray, cost: CostArray, quality: FloatArray) -> tuple[IntArray, CostArray]:
    """Points and costs without those that a cheaper point matches: rounded, they were in another order."""
    order = np.lexsort((-quality, cost))
    ordered = quality[order]
    kept = order[np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])]
    return points[kept], cost[kept]


def _backtrack(choices: list[ChoiceArray], extra_NK: IntArray, left_P: IntArray) -> Iterator[tuple[int, IntArray]]:
    """For each sequence, the last one first, the columns behind some totals (P of them, in steps)."""
    for n in range(len(choices) - 1, -1, -1):
        column_P = choices[n][left_P].astype(np.int64)
        left_P = left_P - extra_NK[n, column_P]
        yield n, column_P
    assert not left_P.any(), "every total was built from its choices"


def _chosen(choices: list[ChoiceArray], extra_NK: IntArray, points: IntArray, index: int) -> IntArray:
    choice_N = np.zeros(len(choices), dtype=np.int64)
    for n, [column] in _backtrack(choices, extra_NK, points[[index]]):
        choice_N[n] = column
    return choice_N


def envelope(items: Items) -> Envelope:
    """Upper concave envelope of each sequence's items, by gift wrapping over all sequences at once."""
    quality_NK, cost_NK = items.quality_NK, items.cost_NK
    N, K = quality_NK.shape
    at_N = (quality_NK > -np.inf).argmax(axis=1)
    base_N, limit_N, all_N = at_N, np.full(N, np.inf), np.arange(N)
    parts: list[tuple[IntArray, IntArray, CostArray, FloatArray, FloatArray]] = []
    while True:
        ahead_NK = (np.arange(K) > at_N[:, None]) & (quality_NK > -np.inf)
        distance_NK = np.where(ahead_NK, cost_NK - items.costs(at_N)[:, None], 1)
        rise_NK = quality_NK - items.qualities(at_N)[:, None]
        slope_NK = np.where(ahead_NK, rise_NK / distance_NK, -np.inf)
        to_N = K - 1 - slope_NK[:, ::-1].argmax(axis=1)  # the farthest of equally steep ones
        moves = slope_NK[all_N, to_N] > 0
        # Rounding may make a collinear segment look steeper than the one before it.
        limit_N = np.minimum(limit_N, slope_NK[all_N, to_N])
        who = np.flatnonzero(moves)
        to = to_N[who]
        parts.append((who, to, distance_NK[who, to], rise_NK[who, to], limit_N[who]))
        if not len(who):
            break
        at_N = np.where(moves, to_N, at_N)
    sequence_S, end_S, cost_S, gain_S, slope_S = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((np.arange(len(slope_S)), sequence_S, -slope_S))
    return Envelope(
        base=base_N,
        base_cost=items.costs(base_N),
        base_quality=items.qualities(base_N),
        sequence=sequence_S[order],
        end=end_S[order],
        cost=cost_S[order],
        gain=gain_S[order],
        slope=slope_S[order],
    )


def solve_relaxed(items: Items) -> Solution:
    """Breakpoints of the linear relaxation, each of them integral; `shift` is the largest segment's cost."""
    hull = envelope(items)
    return Solution(
        cost=np.cumsum(np.append(hull.base_cost.sum(), hull.cost)),
        quality=np.cumsum(np.append(hull.base_quality.sum(), hull.gain)),
        choose=partial(bought, hull),
        shift=float(hull.cost.max(initial=0)),
    )


def bought(hull: Envelope, segments: int) -> IntArray:
    """Columns of the items once so many segments are bought."""
    choice_N = hull.base.copy()
    np.maximum.at(choice_N, hull.sequence[:segments], hull.end[:segments])
    return choice_N
