"""Strategies guided before the first outcome: by hidden states, and by other sequences."""

from collections.abc import Iterable, Iterator

from oracle.errors import InputError
from oracle.search.enumeration import evenly
from oracle.search.guidance import Hints
from oracle.search.local_search import Local
from oracle.search.strategy import Problem, Rounds
from oracle.types import Allocation

__all__ = ["Dp", "Influence", "Transfer"]

SUGGESTIONS = 32
"""Number of masks from other sequences tried before the local search."""


class Influence(Rounds):
    """At every budget the mask without the units of least block influence (ShortGPT, arXiv 2403.03853).

    Raises:
        InputError: if the problem lacks the influence of each unit.
    """

    name = "influence"
    hint = "drops the units that change the hidden state least: one mask per budget"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._hints = problem.hints or Hints()
        given, units = len(self._hints.influence), problem.space.units
        if given != units:
            raise InputError(f"'influence' needs the block influence of all {units} units, but was given {given}")

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        yield [self._hints.keep(self.problem.space, count) for count in evenly(len(self.problem.space.free) + 1)]


class Dp(Rounds):
    """The masks proposed by dynamic programming over hidden states, one per budget (CLaSp, arXiv 2505.24196).

    Raises:
        InputError: if the problem lacks such masks.
    """

    name = "dp"
    hint = "keeps the hidden states nearest to the full model's: one mask per budget"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        masks = problem.hints.masks if problem.hints else {}
        if not masks:
            raise InputError("'dp' needs the masks of a dynamic program over hidden states, but none were given")
        self._masks = [masks[cost] for cost in sorted(masks)]

    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        yield [self._masks[index] for index in evenly(len(self._masks))]


class Transfer(Local):
    """Masks that worked on other sequences, cheapest first, then a local search around the best of them.

    On the first sequence of a run it is a local search.
    """

    name = "transfer"
    hint = "tries what worked on other sequences, then refines it: for many similar sequences"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._suggested = problem.memory.suggest(problem.space, SUGGESTIONS) if problem.memory else []

    def _candidates(self, count: int) -> Iterable[Allocation]:
        if not self.problem.archive.certified:
            yield from self._suggested
        if self._pending.isdisjoint(self._suggested):
            yield from super()._candidates(count)
