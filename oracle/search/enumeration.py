"""Strategies that do not use outcomes: enumeration, named families, random masks."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, combinations

import numpy as np

from oracle.allocations import early_exit, unified
from oracle.search.strategy import Problem, Rounds
from oracle.types import Allocation

__all__ = ["ByBudget", "Exhaustive", "Families", "Random", "Spread", "evenly"]


class Exhaustive(Rounds):
    """Every skip mask, in rising number of units: the ground truth of a small space."""

    name = "exhaustive"
    hint = "every mask of a small space, up to about 16 units: the ground truth"

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        yield chain.from_iterable(self._masks(count) for count in range(len(self.problem.space.free) + 1))

    def _masks(self, count: int) -> Iterator[Allocation]:
        if not self.problem.archive.exhausted(count):
            yield from (self.problem.space.mask(frozenset(one)) for one in combinations(self.problem.space.free, count))


class ByBudget(Exhaustive):
    """Every mask of one budget after the other, from the lowest, until the minimal budget is proven."""

    name = "by-budget"
    hint = "proves the minimal budget where it is low: exhausts one budget after the other"

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        yield from (self._masks(count) for count in range(len(self.problem.space.free) + 1))

    def _candidates(self, count: int) -> Iterable[Allocation]:
        return () if self.problem.archive.certified else super()._candidates(count)


class Families(Rounds):
    """Unified skipping and early exit at every budget, in an order of which every prefix is evenly spread."""

    name = "families"
    hint = "unified skipping and early exit at every budget: the baselines"

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        units = self.problem.space.units
        yield chain.from_iterable(
            (self._kept(unified(units, budget)), self._kept(early_exit(units, budget))) for budget in evenly(units + 1)
        )

    def _family(self, allocation: Allocation) -> str:
        budgets = range(self.problem.space.units + 1)
        known = {self._kept(unified(self.problem.space.units, budget)) for budget in budgets}
        return "unified" if allocation in known else "early-exit"

    def _kept(self, units: Allocation) -> Allocation:
        return self.problem.space.mask(frozenset(units))


class Random(Rounds):
    """Random masks, one per budget in each round: an unbiased sample at every budget."""

    name = "random"
    hint = "an unbiased sample, the same number of masks at every budget"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rng = np.random.default_rng(problem.seed)

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        counts = np.arange(len(self.problem.space.free) + 1)
        left = {int(count): self._at(int(count)) for count in counts}

        def masks() -> Iterator[Allocation]:
            while left:
                for count in self._rng.permutation(sorted(left)):
                    mask = next(left[int(count)], None)
                    if mask is None:
                        del left[int(count)]
                    else:
                        yield mask

        yield masks()

    def _at(self, count: int) -> Iterator[Allocation]:
        """Masks of `count` free units, uniform and distinct: drawn, and after enough draws enumerated.

        Independent of the archive, so that the order does not depend on the number asked for at a time.
        """
        free = np.array(self.problem.space.free, dtype=int)
        total, seen = math.comb(len(free), count), set[Allocation]()
        for _ in range(total // 2):
            mask = self.problem.space.mask(frozenset(self._rng.choice(free, size=count, replace=False).tolist()))
            if mask not in seen:
                seen.add(mask)
                yield mask
        rest = [mask for mask in self.problem.space.masks(count) if mask not in seen]
        for index in self._rng.permutation(len(rest)):
            yield rest[index]


def evenly(count: int) -> list[int]:
    """0..count-1 in bit-reversed order: every prefix is spread over the range."""
    bits = max(1, (count - 1).bit_length())
    return [r for i in range(2**bits) if (r := int(f"{i:0{bits}b}"[::-1], 2)) < count]


class Spread(Rounds):
    """Unified skipping and early exit at every budget, then random masks, the same number per budget.

    Does not use outcomes: its results are those of the number of tries alone.
    """

    name = "spread"
    hint = "families, then random masks: does not use outcomes, so that luck can be measured fairly"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._families, self._random = Families(problem), Random(problem)
        self._named = {mask for round_ in self._families._rounds() for mask in round_}

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        return chain(self._families._rounds(), self._random._rounds())

    def _family(self, allocation: Allocation) -> str:
        return self._families._family(allocation) if allocation in self._named else "random"
