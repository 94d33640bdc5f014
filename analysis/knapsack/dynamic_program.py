"""The multiple-choice knapsack by dynamic programming: one item per sequence, maximal total quality under a total cost.

A recursion over the total cost in whole steps, vectorised over the cost, solves every capacity at once: exactly if all
costs are whole multiples of the step, otherwise within one step per sequence. In shapes, X is the totals to backtrack.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Items, Solution, pieces, undominated

__all__ = ["solve_in_steps", "work"]

KEPT = 16
"""Number of sequences between two stored arrays of totals."""


def work(items: Items, step: float) -> float:
    """Cell updates of the dynamic program: summed over sequences, items times reachable totals before them."""
    counts, spans = [], []
    for rows in pieces(items):
        part = replace(items, cost_NC=items.cost_NC[rows], quality_NC=items.quality_NC[rows])
        keep_RC = part.undominated
        cheapest_R, dearest_R = keep_RC.argmax(axis=1), keep_RC.shape[1] - 1 - keep_RC[:, ::-1].argmax(axis=1)
        counts.append(keep_RC.sum(axis=1))
        spans.append(np.rint((part.costs(dearest_R) - part.costs(cheapest_R)) / step))
    span_N = np.concatenate(spans)
    width_N = np.cumsum(span_N) - span_N + 1
    return float(width_N @ np.concatenate(counts))


def solve_in_steps(items: Items, step: float) -> Solution:
    """Optimal values at every capacity, by dynamic programming over costs rounded to steps; exact at the items' step.

    Among equals at a total cost, the last sequence gets its cheapest one, then the last but one, and so on.
    """
    programme = _Programme(items, step)
    total = programme.total
    points = np.flatnonzero(np.append(True, total[1:] > np.maximum.accumulate(total)[:-1]))
    exact = step == items.step
    if exact:
        base = items.costs(items.undominated.argmax(axis=1))
        cost = base.sum() + points * np.asarray(step, dtype=base.dtype)
    else:
        cost = sum(items.cost_NC[n, column_X] for n, column_X in programme.backtrack(points))
        kept = undominated(cost, total[points])  # rounded, the points were in another order
        points, cost = points[kept], cost[kept]
    return Solution(
        cost=cost,
        quality=total[points],
        choose=partial(_chosen, programme, points),
        shift=0.0 if exact else len(items.cost_NC) * step,
    )


class _Programme:
    """The best total qualities by total steps above the cheapest items, sequence after sequence.

    Only the totals before every `KEPT`-th sequence are stored; the others are recomputed for a choice, as far as
    needed.

    Attributes:
        total: with all sequences.
    """

    def __init__(self, items: Items, step: float) -> None:
        keep_NC = items.undominated
        row, column = np.nonzero(keep_NC)
        base_N = items.costs(keep_NC.argmax(axis=1))
        ends = np.cumsum(keep_NC.sum(axis=1))[:-1]
        extra = np.rint((items.cost_NC[row, column] - base_N[row]) / step).astype(np.int64)
        self._column, self._extra = np.split(column, ends), np.split(extra, ends)
        self._quality = np.split(items.quality_NC[row, column], ends)
        self.total, self._kept = np.zeros(1), []
        for n in range(len(keep_NC)):
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

    def backtrack(self, left_X: IntArray) -> Iterator[tuple[int, IntArray]]:
        """Per sequence, the last one first, the columns behind some totals, given in steps."""
        for first in range(len(self._kept) * KEPT - KEPT, -1, -KEPT):
            totals, most = [self._kept[first // KEPT]], left_X.max() + 1
            for n in range(first, min(first + KEPT, len(self._column)) - 1):
                totals.append(self._with(totals[-1][:most], n))
            for n in range(first + len(totals) - 1, first - 1, -1):
                before, extra = totals.pop(), self._extra[n]
                rest_XC = left_X[:, None] - extra
                there_XC = (rest_XC >= 0) & (rest_XC < len(before))
                total_XC = np.where(there_XC, before[np.where(there_XC, rest_XC, 0)] + self._quality[n], -np.inf)
                m = total_XC.argmax(axis=1)  # the cheapest of equally good ones
                left_X = left_X - extra[m]
                yield n, self._column[n][m]
        assert not left_X.any(), "every total was built from its choices"


def _chosen(programme: _Programme, points: IntArray, index: int) -> IntArray:
    columns = [column for _, [column] in programme.backtrack(points[[index]])]
    return np.array(columns[::-1])
