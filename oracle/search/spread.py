"""An unbiased sample: the named families at every budget, then random masks."""

from collections.abc import Iterable, Iterator
from itertools import chain

from oracle.search.base import Problem, Rounds
from oracle.search.structured import Families, Random
from oracle.types import Allocation

__all__ = ["Spread"]


class Spread(Rounds):
    """Unified skipping and early exit at every budget, then random masks, the same number a budget.

    Learns nothing from outcomes: what it finds is what trying so many allocations finds by itself.
    """

    name = "spread"
    hint = "families, then random masks: learns nothing, so that luck can be measured fairly"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._families, self._random = Families(problem), Random(problem)
        self._named = {mask for round_ in self._families._rounds() for mask in round_}

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        return chain(self._families._rounds(), self._random._rounds())

    def _family(self, allocation: Allocation) -> str:
        return self._families._family(allocation) if allocation in self._named else "random"
