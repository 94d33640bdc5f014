"""The multiple-choice knapsack: one item of each sequence, most total quality under a total cost.

Two solvers, both giving every capacity at once. One is a dynamic programme over the total cost in whole steps,
vectorised over the cost: exact if all costs are whole multiples of the step, and otherwise off by less than a step a
sequence. The other one takes the upper concave envelope of each sequence's items and buys segments by falling
efficiency (the linear relaxation; Sinha and Zoltners 1979): its breakpoints are optimal at their own total cost, and
between them the best value is less than one segment higher. `analysis.core` closes that gap at a single capacity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from analysis.grouping import CostArray, FloatArray, IntArray
from analysis.items import Items

__all__ = ["Envelope", "Solution", "bought", "envelope", "pieces", "solve_in_steps", "solve_relaxed", "work"]

KEPT = 16
"""Sequences between two arrays of totals that are kept."""

PIECE = 100_000
"""Items looked at at a time."""


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


def pieces(items: Items) -> Iterator[slice]:
    """Sequences a few at a time: what stays in the processor's cache is done several times faster."""
    N, K = items.quality_NK.shape
    rows = max(1, PIECE // K)
    for first in range(0, N, rows):
        yield slice(first, first + rows)


def work(items: Items, step: float) -> float:
    """Cell updates of the dynamic programme: summed over sequences, items times reachable totals before them."""
    counts, spans = [], []
    for rows in pieces(items):
        part = replace(items, cost_NK=items.cost_NK[rows], quality_NK=items.quality_NK[rows])
        keep_RK = part.undominated
        cheapest_R, dearest_R = keep_RK.argmax(axis=1), keep_RK.shape[1] - 1 - keep_RK[:, ::-1].argmax(axis=1)
        counts.append(keep_RK.sum(axis=1))
        spans.append(np.rint((part.costs(dearest_R) - part.costs(cheapest_R)) / step))
    span_N = np.concatenate(spans)
    width_N = np.cumsum(span_N) - span_N + 1
    return float(width_N @ np.concatenate(counts))


def solve_in_steps(items: Items, step: float) -> Solution:
    """Optimal values at every capacity, by dynamic programming over costs rounded to steps.

    Of equally good choices at a total cost, the last sequence gets its cheapest one, then the last but one,
    and so on.

    Args:
        items: what there is to choose from.
        step: of the costs; with that of the items the solution is exact.
    """
    programme = _Programme(items, step)
    total = programme.total
    points = np.flatnonzero(np.append(True, total[1:] > np.maximum.accumulate(total)[:-1]))
    exact = step == items.step
    if exact:
        base = items.costs(items.undominated.argmax(axis=1))
        cost = base.sum() + points * np.asarray(step, dtype=base.dtype)
    else:
        cost = sum(items.cost_NK[n, column_P] for n, column_P in programme.backtrack(points))
        points, cost = _rising(points, cost, total[points])
    return Solution(
        cost=cost,
        quality=total[points],
        choose=partial(_chosen, programme, points),
        shift=0.0 if exact else len(items.cost_NK) * step,
    )


def _rising(points: IntArray, cost: CostArray, quality: FloatArray) -> tuple[IntArray, CostArray]:
    """Points and costs without those that a cheaper point matches: rounded, they were in another order."""
    order = np.lexsort((-quality, cost))
    ordered = quality[order]
    kept = order[np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])]
    return points[kept], cost[kept]


class _Programme:
    """The best total qualities by total steps above the cheapest items, sequence after sequence.

    Only those before every `KEPT`-th sequence are kept: the others are computed again where a choice is asked for, up
    to the steps that it takes.

    Attributes:
        total: with all sequences.
    """

    def __init__(self, items: Items, step: float) -> None:
        keep_NK = items.undominated
        row, column = np.nonzero(keep_NK)
        base_N = items.costs(keep_NK.argmax(axis=1))
        ends = np.cumsum(keep_NK.sum(axis=1))[:-1]
        extra = np.rint((items.cost_NK[row, column] - base_N[row]) / step).astype(np.int64)
        self._column, self._extra = np.split(column, ends), np.split(extra, ends)
        self._quality = np.split(items.quality_NK[row, column], ends)
        self.total, self._kept = np.zeros(1), []
        for n in range(len(keep_NK)):
            if n % KEPT == 0:
                self._kept.append(self.total)
            self.total = self._with(self.total, n)

    def _with(self, total: FloatArray, n: int) -> FloatArray:
        """Totals with one more sequence."""
        extra, quality = self._extra[n].tolist(), self._quality[n].tolist()
        width, candidate = len(total), np.empty_like(total)
        best = np.empty(width + extra[-1])
        np.add(total, quality[0], out=best[:width])
        best[width:] = -np.inf
        for here, gain in zip(extra[1:], quality[1:], strict=True):
            np.add(total, gain, out=candidate)
            np.maximum(best[here : here + width], candidate, out=best[here : here + width])
        return best

    def backtrack(self, left_P: IntArray) -> Iterator[tuple[int, IntArray]]:
        """For each sequence, the last one first, the columns behind some totals (P of them, in steps)."""
        for first in range(len(self._kept) * KEPT - KEPT, -1, -KEPT):
            totals, most = [self._kept[first // KEPT]], left_P.max() + 1
            for n in range(first, min(first + KEPT, len(self._column)) - 1):
                totals.append(self._with(totals[-1][:most], n))
            for n in range(first + len(totals) - 1, first - 1, -1):
                before, extra = totals.pop(), self._extra[n]
                rest_PM = left_P[:, None] - extra
                there_PM = (rest_PM >= 0) & (rest_PM < len(before))
                total_PM = np.where(there_PM, before[np.where(there_PM, rest_PM, 0)] + self._quality[n], -np.inf)
                m = total_PM.argmax(axis=1)  # the cheapest of equally good ones
                left_P = left_P - extra[m]
                yield n, self._column[n][m]
        assert not left_P.any(), "every total was built from its choices"


def _chosen(programme: _Programme, points: IntArray, index: int) -> IntArray:
    columns = [column for _, [column] in programme.backtrack(points[[index]])]
    return np.array(columns[::-1])


def envelope(items: Items) -> Envelope:
    """Upper concave envelope of each sequence's items, by gift wrapping over many sequences at once."""
    parts = [part for rows in pieces(items) for part in _wrap(items, rows)]
    sequence_S, end_S, cost_S, gain_S, slope_S = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Both sorts are stable: of equally efficient segments, the first sequence's nearest one comes first.
    order = np.argsort(sequence_S, kind="stable")
    order = order[np.argsort(-slope_S[order], kind="stable")]
    base_N = (items.quality_NK > -np.inf).argmax(axis=1)
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


def _wrap(items: Items, rows: slice) -> Iterator[tuple[IntArray, IntArray, CostArray, FloatArray, FloatArray]]:
    """Sequence, end, cost, gain and slope of the first segments of some sequences, of their second ones, and so on."""
    cost_RK, quality_RK = items.cost_NK[rows], items.quality_NK[rows]
    at_R = (quality_RK > -np.inf).argmax(axis=1)
    sequence_R, limit_R = rows.start + np.arange(len(at_R)), np.full(len(at_R), np.inf)
    while True:
        row_R, last_column = np.arange(len(at_R)), cost_RK.shape[1] - 1
        distance_RK = cost_RK - cost_RK[row_R, at_R][:, None]
        rise_RK = quality_RK - quality_RK[row_R, at_R][:, None]
        slope_RK = np.full(rise_RK.shape, -np.inf)
        np.divide(rise_RK, distance_RK, out=slope_RK, where=distance_RK > 0)
        to_R = last_column - slope_RK[:, ::-1].argmax(axis=1)  # the farthest of equally steep ones
        # Rounding may make a collinear segment look steeper than the one before it.
        limit_R = np.minimum(limit_R, slope_RK[row_R, to_R])
        moves = np.flatnonzero(limit_R > 0)
        to_R = to_R[moves]
        yield sequence_R[moves], to_R, distance_RK[moves, to_R], rise_RK[moves, to_R], limit_R[moves]
        if not len(moves):
            return
        at_R, sequence_R, limit_R = to_R, sequence_R[moves], limit_R[moves]
        cost_RK, quality_RK = cost_RK[moves], quality_RK[moves]


def solve_relaxed(hull: Envelope) -> Solution:
    """Breakpoints of the linear relaxation, each of them integral; `shift` is the largest segment's cost."""
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
