"""The linear relaxation's curve with points filled in between its breakpoints.

The next segment of the envelope may cost many steps, and nothing is bought until it is paid for. But among thousands of
sequences some have a segment that is nearly as efficient and costs less. So within the next segment's cost others are
bought instead (one, or two, or one in exchange for one bought before), maximising the gain per step. The loss against
the relaxation is then a small difference of slopes, not a whole segment.

A breakpoint i has bought the segments before i. In shapes, X is the bins of cost, R the breakpoints processed together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Solution, undominated
from analysis.knapsack.relaxation import Envelope, bought

__all__ = ["solve_filled"]

FINE = 5e-6
"""Gains below this fraction of the highest total quality are not cut further."""

BINS = 32
"""Maximum number of bins of the dearest segment."""

TRIES = 4
"""Segments per cost tried for one that can be bought, or given back, on its own."""

PIECE = 20_000
"""Breakpoints processed at a time."""

NEARLY = 1e-6
"""Rounding tolerance of costs in bins."""

NONE = -1
"""Index that means no segment."""


def solve_filled(hull: Envelope, bound: Solution, step: float | None) -> Solution:
    """Breakpoints of the linear relaxation, as from `solve_relaxed`, and the best exchanges between them.

    `step` divides all differences between costs; None if unknown.
    """
    coarse = np.flatnonzero(hull.gain > FINE * abs(bound.quality[-1]))
    if not len(coarse):
        return bound
    filling = _Filling(hull, bound, max(step or 0.0, float(hull.cost.max()) / BINS))
    found = [_breakpoints(bound)]
    found += [points for first in range(0, len(coarse), PIECE) for points in filling.between(coarse[first:][:PIECE])]
    cost, quality, segments, swap = (np.concatenate(column) for column in zip(*found, strict=True))
    order = undominated(cost, quality)
    return Solution(
        cost=cost[order],
        quality=quality[order],
        choose=partial(_chosen, hull, filling.before, segments[order], swap[order]),
        shift=bound.shift,
    )


Points = tuple[FloatArray, FloatArray, IntArray, IntArray]
"""Cost and quality; segments bought; of shape (., 3), up to two more bought and one given back."""


def _breakpoints(bound: Solution) -> Points:
    count = len(bound.cost)
    return np.asarray(bound.cost, dtype=np.float64), bound.quality, np.arange(count), np.full((count, 3), NONE)


def _chosen(hull: Envelope, before: IntArray, segments: IntArray, swap: IntArray, index: int) -> IntArray:
    choice_N = bought(hull, int(segments[index]))
    *added, removed = swap[index].tolist()
    for segment in added:
        if segment != NONE:
            choice_N[hull.sequence[segment]] = hull.end[segment]
    if removed != NONE:
        sequence, last = hull.sequence[removed], before[removed]
        choice_N[sequence] = hull.base[sequence] if last == NONE else hull.end[last]
    return choice_N


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Per cost and breakpoint, the nearest segment that can be bought, or given back, on its own.

    Attributes:
        segment_XR: its index, `NONE` if there is none.
        gain_XR: its contribution to the total quality; -inf if there is none.
    """

    segment_XR: IntArray
    gain_XR: FloatArray


class _Filling:
    """Exchanges between two breakpoints of an envelope.

    Attributes:
        before: per segment, the one of the same sequence that must be bought before it, or `NONE`.
    """

    def __init__(self, hull: Envelope, bound: Solution, width: float) -> None:
        self._hull, self._bound, self._width = hull, bound, width
        count = len(hull.cost)
        order = np.argsort(hull.sequence, kind="stable")
        here, there = order[:-1], order[1:]
        same = hull.sequence[here] == hull.sequence[there]
        self.before, self._after = np.full(count, NONE), np.full(count, count)
        self.before[there[same]], self._after[here[same]] = here[same], there[same]
        # Rounded so that the replacement never costs more than the available room.
        added, removed = np.ceil(hull.cost / width - NEARLY), np.floor(hull.cost / width + NEARLY)
        self._bins = int(added.max())
        self._added, self._removed = (
            [np.flatnonzero(of == bin) for bin in range(self._bins + 1)] for of in (added, removed)
        )

    def between(self, at_R: IntArray) -> Iterator[Points]:
        """The best exchange in each bin of cost below the next segment's."""
        hull, bound = self._hull, self._bound
        add = self._table(at_R, self._added, forward=True)
        remove = self._table(at_R, self._removed, forward=False)
        room_R = np.ceil(hull.cost[at_R] / self._width - NEARLY)
        for room in range(1, self._bins):
            rows = np.flatnonzero(room_R > room)
            if not len(rows):
                return
            gain, swap = self._best(room, add, remove, rows)
            real = gain > 0
            at, swap = at_R[rows[real]], swap[real]
            one, two, back = (np.where(swap[:, n] == NONE, 0.0, hull.cost[swap[:, n]]) for n in range(3))
            yield np.asarray(bound.cost[at] + one + two - back), bound.quality[at] + gain[real], at, swap

    def _table(self, at_R: IntArray, by_bin: list[IntArray], *, forward: bool) -> _Table:
        segment_XR = np.full((self._bins + 1, len(at_R)), NONE)
        for bin, places in enumerate(by_bin):
            if bin == 0 or not len(places):
                continue
            first_R = np.searchsorted(places, at_R) - (not forward)
            for step in range(TRIES):
                index_R = first_R + (step if forward else -step)
                there_R = (index_R >= 0) & (index_R < len(places)) & (segment_XR[bin] == NONE)
                candidate = places[index_R[there_R]]
                at = at_R[there_R]
                alone = self.before[candidate] < at if forward else self._after[candidate] >= at
                segment_XR[bin, np.flatnonzero(there_R)[alone]] = candidate[alone]
        gain_XR = np.where(segment_XR == NONE, -np.inf, self._hull.gain[segment_XR] * (1 if forward else -1))
        return _Table(segment_XR=segment_XR, gain_XR=gain_XR)

    def _best(self, room: int, add: _Table, remove: _Table, rows: IntArray) -> tuple[FloatArray, IntArray]:
        """Highest gain within a number of bins, and its segments, shape (., 3)."""
        sequence = self._hull.sequence
        swap = np.full((len(rows), 3), NONE)
        gain = add.gain_XR[room, rows]
        swap[:, 0] = add.segment_XR[room, rows]

        def offer(other: FloatArray, *segments: IntArray | int) -> None:
            better = np.flatnonzero(other > gain)
            gain[better] = other[better]
            for n, segment in enumerate(segments):
                swap[better, n] = segment if isinstance(segment, int) else segment[better]

        for one in range(1, (room + 1) // 2):
            # Different costs, each the first that its sequence can buy: so the sequences differ.
            other = add.gain_XR[one, rows] + add.gain_XR[room - one, rows]
            offer(other, add.segment_XR[one, rows], add.segment_XR[room - one, rows], NONE)
        for back in range(1, self._bins - room + 1):
            added, removed = add.segment_XR[room + back, rows], remove.segment_XR[back, rows]
            other = add.gain_XR[room + back, rows] + remove.gain_XR[back, rows]
            offer(np.where(sequence[added] == sequence[removed], -np.inf, other), added, NONE, removed)
        return gain, swap
