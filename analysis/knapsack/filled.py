"""The linear relaxation's curve with what lies between its breakpoints filled in.

The next segment of the envelope may cost many steps, and until it is paid for nothing is bought. But of thousands of
sequences some have a segment that is nearly as efficient and costs less: so within the next segment's cost others are
bought instead (one, or two, or one in exchange for one that was bought before), whatever gains most in each step of it.
What is lost against the relaxation is then a small difference of slopes, not a whole segment.

Shapes: S segments of the envelope, the most efficient first; B bins of cost; R breakpoints looked at at a time, those
before the segments of the given indices. A breakpoint i has bought the segments before i.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Solution
from analysis.knapsack.relaxation import Envelope, bought

__all__ = ["solve_filled"]

FINE = 5e-6
"""Gains smaller than this fraction of the most total quality are not cut further."""

BINS = 32
"""Steps that the dearest segment is cut into at most."""

TRIES = 4
"""Segments of a cost looked at for one that can be bought, or given back, on its own."""

PIECE = 20_000
"""Breakpoints looked at at a time."""

NEARLY = 1e-6
"""What costs in bins may be off by."""

NONE = -1
"""Stands for no segment."""


def solve_filled(hull: Envelope, bound: Solution, step: float | None) -> Solution:
    """Breakpoints of the linear relaxation, and the best exchanges between them.

    Args:
        hull: of the items.
        bound: its breakpoints, from `solve_relaxed`.
        step: what all costs differ by whole multiples of; None if that is not known.
    """
    coarse = np.flatnonzero(hull.gain > FINE * abs(bound.quality[-1]))
    if not len(coarse):
        return bound
    filling = _Filling(hull, bound, max(step or 0.0, float(hull.cost.max()) / BINS))
    found = [_breakpoints(bound)]
    found += [points for first in range(0, len(coarse), PIECE) for points in filling.between(coarse[first:][:PIECE])]
    cost, quality, segments, swap = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((-quality, cost))
    ordered = quality[order]
    order = order[np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])]
    return Solution(
        cost=cost[order],
        quality=quality[order],
        choose=partial(_chosen, hull, filling.before, segments[order], swap[order]),
        shift=bound.shift,
    )


Points = tuple[FloatArray, FloatArray, IntArray, IntArray]
"""Cost and quality; segments bought; of shape (., 3), what is bought besides, twice, and what is given back."""


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
    """The segment of each cost that is nearest to each breakpoint and can be bought, or given back, on its own.

    Attributes:
        segment_BR: its index, `NONE` where there is none.
        gain_BR: what it adds to the total quality; -inf where there is none.
    """

    segment_BR: IntArray
    gain_BR: FloatArray


class _Filling:
    """What can be bought between two breakpoints of an envelope.

    Attributes:
        before: of each segment the one of the same sequence that has to be bought before it, or `NONE`.
    """

    def __init__(self, hull: Envelope, bound: Solution, width: float) -> None:
        self._hull, self._bound, self._width = hull, bound, width
        count = len(hull.cost)
        order = np.argsort(hull.sequence, kind="stable")
        here, there = order[:-1], order[1:]
        same = hull.sequence[here] == hull.sequence[there]
        self.before, self._after = np.full(count, NONE), np.full(count, count)
        self.before[there[same]], self._after[here[same]] = here[same], there[same]
        # Rounded so that what is bought instead never costs more than the room that there is.
        added, removed = np.ceil(hull.cost / width - NEARLY), np.floor(hull.cost / width + NEARLY)
        self._bins = int(added.max())
        self._added, self._removed = (
            [np.flatnonzero(of == bin) for bin in range(self._bins + 1)] for of in (added, removed)
        )

    def between(self, at_R: IntArray) -> Iterator[Points]:
        """The best of each bin of cost less than the next segment's."""
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
        segment_BR = np.full((self._bins + 1, len(at_R)), NONE)
        for bin, places in enumerate(by_bin):
            if bin == 0 or not len(places):
                continue
            first_R = np.searchsorted(places, at_R) - (not forward)
            for step in range(TRIES):
                index_R = first_R + (step if forward else -step)
                there_R = (index_R >= 0) & (index_R < len(places)) & (segment_BR[bin] == NONE)
                candidate = places[index_R[there_R]]
                at = at_R[there_R]
                alone = self.before[candidate] < at if forward else self._after[candidate] >= at
                segment_BR[bin, np.flatnonzero(there_R)[alone]] = candidate[alone]
        gain_BR = np.where(segment_BR == NONE, -np.inf, self._hull.gain[segment_BR] * (1 if forward else -1))
        return _Table(segment_BR=segment_BR, gain_BR=gain_BR)

    def _best(self, room: int, add: _Table, remove: _Table, rows: IntArray) -> tuple[FloatArray, IntArray]:
        """Most gain within so many bins, and the segments behind it, shape (., 3)."""
        sequence = self._hull.sequence
        swap = np.full((len(rows), 3), NONE)
        gain = add.gain_BR[room, rows]
        swap[:, 0] = add.segment_BR[room, rows]

        def offer(other: FloatArray, *segments: IntArray | int) -> None:
            better = np.flatnonzero(other > gain)
            gain[better] = other[better]
            for n, segment in enumerate(segments):
                swap[better, n] = segment if isinstance(segment, int) else segment[better]

        for one in range(1, (room + 1) // 2):
            # Of different costs, each the first that its sequence can buy: so they are of different sequences.
            other = add.gain_BR[one, rows] + add.gain_BR[room - one, rows]
            offer(other, add.segment_BR[one, rows], add.segment_BR[room - one, rows], NONE)
        for back in range(1, self._bins - room + 1):
            added, removed = add.segment_BR[room + back, rows], remove.segment_BR[back, rows]
            other = add.gain_BR[room + back, rows] + remove.gain_BR[back, rows]
            offer(np.where(sequence[added] == sequence[removed], -np.inf, other), added, NONE, removed)
        return gain, swap
