"""Local search strategies: from the full allocation downwards, from nothing upwards, around the incumbent."""

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, cycle, product
from typing import ClassVar

import numpy as np

from oracle.search.strategy import Problem, Rounds, Strategy
from oracle.types import Allocation

__all__ = ["Beam", "Greedy", "Local"]

Kept = frozenset[int]
"""The free units that a mask runs."""


class Beam(Rounds):
    """Drops one unit after the other while masks qualify, then adds one after the other until one does.

    Per number of units it continues with the few masks of the highest quality; downwards, those that qualify.
    """

    name = "beam"
    hint = "greedy removal and addition along several paths at once"
    width: ClassVar[int] = 4

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        yield from self._backward()
        yield from self._forward()

    def _backward(self) -> Iterator[list[Allocation]]:
        beam = [frozenset(self.problem.space.free)]
        while beam:
            below = sorted({kept - {unit} for kept in beam for unit in kept}, key=sorted)
            yield [self.problem.space.mask(kept) for kept in below]
            beam = self._best(below, qualifying=True)

    def _forward(self) -> Iterator[list[Allocation]]:
        free = frozenset(self.problem.space.free)
        beam: list[Kept] = [frozenset()]
        yield [self.problem.space.mask(frozenset())]
        while beam := [kept for kept in beam if self._cheaper(kept)]:
            above = sorted({kept | {unit} for kept in beam for unit in free - kept}, key=sorted)
            yield [mask for kept in above if self._cheaper(kept) for mask in [self.problem.space.mask(kept)]]
            beam = self._best(above, qualifying=False)

    def _cheaper(self, kept: Kept) -> bool:
        """Whether the mask costs less than the incumbent."""
        space, upper = self.problem.space, self.problem.archive.upper
        return upper is None or space.cost(space.mask(kept)) < space.cost(upper.allocation)

    def _best(self, options: Iterable[Kept], *, qualifying: bool) -> list[Kept]:
        """The best of the evaluated masks among some; the first among equals."""
        archive = self.problem.archive
        known = [
            (-archive.quality(outcome), sorted(kept), kept)
            for kept in options
            if (outcome := archive.outcomes.get(self.problem.space.mask(kept)))
            and (archive.qualifies(outcome) or not qualifying)
        ]
        return [kept for _, _, kept in sorted(known, key=lambda one: one[:2])[: self.width]]


class Greedy(Beam):
    """Drops the unit of the least loss while the mask qualifies, then adds that of the largest gain until it does."""

    name = "greedy"
    hint = "one unit at a time, dropped while quality holds, then added until it does: few evaluations, deterministic"
    width = 1


class Local(Strategy):
    """Searches around the best masks found that cost no more than the incumbent, highest quality first.

    Neighbours of a mask: one unit less, two less, one exchanged, one more; those cheaper than the incumbent come before
    its equals, which are worth trying because quality has plateaus. Every fourth proposal restarts from a random point
    of the frontier instead, as the best masks may surround a dead end.
    """

    name = "local"
    hint = "neighbours of the best masks found so far: robust, and without a model of the quality"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rng = np.random.default_rng(problem.seed)

    def _candidates(self, count: int) -> Iterable[Allocation]:
        archive, space = self.problem.archive, self.problem.space
        if archive.certified:
            return
        assert archive.upper is not None, "the full model qualifies"
        bound = space.cost(archive.upper.allocation)
        within = [one for one in archive.outcomes.values() if space.cost(one.allocation) <= bound]
        within.sort(key=lambda one: (-archive.quality(one), space.cost(one.allocation), one.allocation))
        best = chain.from_iterable(self._around(one.allocation, bound) for one in within)
        frontier = [one for one in archive.frontier() if space.cost(one.allocation) <= bound]
        restarts = [frontier[i] for i in self._rng.permutation(len(frontier))]
        others = chain.from_iterable(self._around(one.allocation, bound) for one in restarts)
        for index in cycle(range(4)):
            following = next(others if index == 3 else best, None)
            if following is None and index != 3:
                return
            if following is not None:
                yield following

    def _around(self, mask: Allocation, bound: float) -> list[Allocation]:
        """New neighbours of a mask, first those cheaper than `bound`, then its equals; dearer ones are left out."""
        space = self.problem.space
        kept = frozenset(mask) & frozenset(space.free)
        lost = frozenset(space.free) - kept
        rings: list[list[Kept]] = [
            [kept - {unit} for unit in kept],
            [kept - set(two) for two in combinations(sorted(kept), 2)],
            [kept - {unit} | {other} for unit, other in product(sorted(kept), sorted(lost))],
            [kept | {unit} for unit in lost],
        ]
        near = [space.mask(ring[i]) for ring in rings for i in self._rng.permutation(len(ring))]
        near = [one for one in near if not self.known(one) and space.cost(one) <= bound]
        return sorted(near, key=lambda one: space.cost(one) == bound)
