"""The default search: a little of everything, then whatever a model of the quality expects most of."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, combinations, islice

import numpy as np

from oracle.allocations import unified
from oracle.search.acquisition import Promising
from oracle.search.enumeration import evenly
from oracle.search.local_search import Local
from oracle.search.strategy import Problem, Strategy
from oracle.types import Allocation

__all__ = ["Auto"]

OPENING = 13
"""Masks, spread over the budgets, that are evaluated before the model is asked."""

SUGGESTIONS = 32
"""Masks of other sequences that are tried first."""

LEAST_BATCH = 8
"""A batch is at least this many, and at most a quarter of what is known: so the model learns as it goes."""

COVER = 3.5
"""The chance to test the smallest masks next is the square of so many times the evaluations there have been, over the
masks that may still be cheaper: next to nothing where these are countless, and 1 once they are at most 3.5 times as
many. Squared, for coverage pays where it gets to the end."""

NEAR, FULL, STEEP = 0.25, 0.5, 10
"""Of the other evaluations, the share that goes to neighbours of the best masks: `NEAR` where the incumbent is small,
`FULL` where it is the full allocation, and between them by that power of the incumbent's share of the free units. Where
hardly any layer can be spared, what can be is found one layer at a time, and a model has nothing to learn from."""


class Auto(Strategy):
    """Opens with masks of every kind, then evaluates what a Gaussian process expects most of.

    The opening: no free unit at all, what worked on other sequences, what hidden states propose, and random masks and
    unified skipping spread over the budgets. Then every mask comes from one of three sources, drawn by lot: what the
    model expects to qualify and to save most; neighbours of the best masks, whatever the model thinks of them; and
    all that costs less than the incumbent, from the smallest up, which finds what no model can foresee and raises the
    lower bound. The more of the latter the evaluations so far could have covered, the likelier it is drawn.
    """

    name = "auto"
    hint = "the default: finds cheap masks in few evaluations, and proves them minimal where that is affordable"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rng = np.random.default_rng(problem.seed)
        self._free = np.array(problem.space.free, dtype=int)
        self._local = Local(problem)
        self._opening = list(self._guided()) + list(self._spread())

    def _candidates(self, count: int) -> Iterable[Allocation]:
        archive = self.problem.archive
        if archive.certified:
            return
        yield from self._opening
        count = min(count, max(LEAST_BATCH, len(archive) // 4) - len(self._pending))
        if count > 0 and self._pending.isdisjoint(self._opening):
            yield from islice(self._mixed(count), count)

    def _guided(self) -> Iterator[Allocation]:
        """No free unit, and what memory and hints propose."""
        space, memory, hints = self.problem.space, self.problem.memory, self.problem.hints
        yield space.mask(frozenset())
        if memory is not None:
            yield from memory.suggest(space, SUGGESTIONS)
        if hints is not None:
            masks = [hints.masks[cost] for cost in sorted(hints.masks)]
            yield from (masks[index] for index in evenly(len(masks))[:8])

    def _spread(self) -> Iterator[Allocation]:
        """Random masks, and unified skipping, at budgets that are spread evenly."""
        space, F = self.problem.space, len(self._free)
        for turn, count in enumerate(evenly(F + 1)[1:OPENING]):
            chosen = self._rng.choice(self._free, size=count, replace=False)
            even = self._free[list(unified(F, count))]
            yield space.mask(frozenset((even if turn % 3 == 2 else chosen).tolist()))

    def _mixed(self, count: int) -> Iterator[Allocation]:
        """Each from a source drawn by lot, or, where that has nothing new, from another; none if nothing is cheaper."""
        if next(self._cheaper(), None) is None:
            return
        known = len(self.problem.archive)
        untested = sum(math.comb(len(self._free), budget) for budget in self._counts())
        cover = min(1.0, COVER * known / untested) ** 2
        near = self._near()
        lots = self._rng.choice(3, size=count, p=[(1 - cover) * (1 - near), (1 - cover) * near, cover])
        wanted = int((lots == 0).sum())
        promising = Promising(self.problem, self._rng).best(wanted) if wanted else []
        sources = [iter(promising), iter(self._local._candidates(count)), self._cheaper()]
        for lot in lots:
            new = (mask for source in (sources[lot], *sources) for mask in source if not self.known(mask))
            yield from islice(new, 1)

    def _near(self) -> float:
        """The share of neighbours: the closer the incumbent is to the full allocation, the more."""
        upper = self.problem.archive.upper
        assert upper is not None, "the full allocation qualifies"
        kept = len(set(upper.allocation) & set(self.problem.space.free)) / len(self._free)
        return NEAR + (FULL - NEAR) * kept**STEEP

    def _counts(self) -> list[int]:
        """Numbers of free units that are not exhausted and may cost less than the incumbent."""
        space, archive = self.problem.space, self.problem.archive
        assert archive.upper is not None, "the full allocation qualifies"
        costs = sorted(space.costs[unit] for unit in space.free)
        room = space.cost(archive.upper.allocation) - space.cost(space.mask(frozenset()))
        return [k for k in range(len(costs) + 1) if sum(costs[:k]) < room and not archive.exhausted(k)]

    def _cheaper(self) -> Iterator[Allocation]:
        """Every untested mask that costs less than the incumbent, the smallest first."""
        space, upper = self.problem.space, self.problem.archive.upper
        assert upper is not None, "the full allocation qualifies"
        chosen = chain.from_iterable(combinations(space.free, count) for count in self._counts())
        masks = (space.mask(frozenset(one)) for one in chosen)
        return (one for one in masks if space.cost(one) < space.cost(upper.allocation) and not self.known(one))
