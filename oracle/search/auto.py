"""The default search: a little of everything, then whatever a model of the quality expects most of."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, combinations, islice

import numpy as np

from oracle.families import unified
from oracle.search.base import Problem, Strategy
from oracle.search.promising import Promising
from oracle.search.structured import evenly
from oracle.types import Allocation

__all__ = ["Auto"]

OPENING = 13
"""Masks, spread over the budgets, that are evaluated before the model is asked."""

SUGGESTIONS = 16
"""Masks of other sequences that are tried first."""

GREEDS = (0.0, 1.0, 3.0)
"""Powers of what a mask would save by which its chance is weighed, in turn: sure small steps, and bold ones."""

LEAST_BATCH = 8
"""A batch is at least this many, and at most a quarter of what is known: so the model learns as it goes."""

PROOF = 4
"""Once the cheapest budgets can be exhausted with this many times the evaluations there have been, one proposal of so
many goes there; once they can with one so manyth of them, all do."""


class Auto(Strategy):
    """Opens with masks of every kind, then evaluates what a Gaussian process expects most of.

    The opening: no free unit at all, what worked on other sequences, what hidden states propose, and random masks and
    unified skipping spread over the budgets. Then masks cheaper than the incumbent, chosen by their chance to qualify
    and by what they would save, from random ones and neighbours of the best. Where the incumbent is so cheap that the
    budgets below can be exhausted, a share of the evaluations does that: it raises the lower bound.
    """

    name = "auto"
    hint = "the default: finds cheap masks in few evaluations, and proves them minimal where that is affordable"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rng = np.random.default_rng(problem.seed)
        self._free = np.array(problem.space.free, dtype=int)
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
            budgets = evenly(len(self._free) + 1)[1:8]
            yield from (hints.keep(space, count) for count in budgets if hints.influence)
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
        """Promising masks and a share of proof; where neither is to be had, all that may still be cheaper."""
        known = len(self.problem.archive)
        untested = sum(math.comb(len(self._free), count) for count in self._counts())
        promising = Promising(self.problem, self._rng).best(count) if untested > known // PROOF else []
        proof = self._cheaper() if untested <= PROOF * known or not promising else iter(())
        for start in range(0, len(promising), PROOF - 1):
            yield from promising[start : start + PROOF - 1]
            yield from islice(proof, 1)
        yield from proof

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
