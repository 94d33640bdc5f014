"""The default search: an opening of varied masks, then candidates of a model of the quality."""

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
"""Number of masks, spread over the budgets, evaluated before the model is used."""

SUGGESTIONS = 32
"""Number of masks from other sequences that are tried first."""

LEAST_BATCH = 8
"""Minimum batch size; otherwise at most a quarter of the known outcomes, so that the model is refitted often."""

COVER = 3.5
"""Factor in the probability of testing the smallest masks next: the square of 3.5 times the number of evaluations over
the number of masks that may still be cheaper, at most 1. It is negligible while these are countless. Squared, because
coverage pays only if it is completed."""

NEAR, FULL, STEEP = 0.25, 0.5, 10
"""Share of the other evaluations spent on neighbours of the best masks: `NEAR` for a small incumbent, `FULL` for the
full allocation, in between by that power of the incumbent's share of the free units. If hardly any layer can be
skipped, those that can are found one at a time, and a model has nothing to learn from."""


class Auto(Strategy):
    """Opens with varied masks, then evaluates the best candidates of a Gaussian process.

    Opening: the mask without free units, masks that worked on other sequences, masks proposed by hidden states, and
    random masks and unified skipping spread over the budgets. Then every mask comes from one of three sources, drawn at
    random: those expected to qualify and to save most under the model; neighbours of the best masks, regardless of the
    model; and all masks cheaper than the incumbent, from the smallest up, which finds what no model predicts and raises
    the lower bound. The last source is drawn the more often, the larger its share that the evaluations could have
    covered.
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
        """The mask without free units, and the proposals of memory and hints."""
        space, memory, hints = self.problem.space, self.problem.memory, self.problem.hints
        yield space.mask(frozenset())
        if memory is not None:
            yield from memory.suggest(space, SUGGESTIONS)
        if hints is not None:
            masks = [hints.masks[cost] for cost in sorted(hints.masks)]
            yield from (masks[index] for index in evenly(len(masks))[:8])

    def _spread(self) -> Iterator[Allocation]:
        """Random masks and unified skipping, at evenly spread budgets."""
        space, F = self.problem.space, len(self._free)
        for turn, count in enumerate(evenly(F + 1)[1:OPENING]):
            chosen = self._rng.choice(self._free, size=count, replace=False)
            even = self._free[list(unified(F, count))]
            yield space.mask(frozenset((even if turn % 3 == 2 else chosen).tolist()))

    def _mixed(self, count: int) -> Iterator[Allocation]:
        """Masks from sources drawn at random, or from another if that has nothing new; none if nothing is cheaper."""
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
        """Share of neighbours: higher, the closer the incumbent is to the full allocation."""
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
