"""The contract of a search strategy, and the problem it is given."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from oracle.search.archive import Archive
from oracle.search.guidance import Hints, Memory
from oracle.search.space import Space
from oracle.types import Allocation, Outcome, Proposal

__all__ = ["Problem", "Rounds", "Strategy"]


@dataclass(kw_only=True)
class Problem:
    """The search of one sequence: space, known outcomes and guidance.

    Attributes:
        space: the search space.
        archive: the outcomes so far, possibly none.
        seed: of every random choice.
        memory: masks that worked on other sequences.
        hints: structure derived from the model's hidden states.
    """

    space: Space
    archive: Archive
    seed: int
    memory: Memory | None = None
    hints: Hints | None = None


class Strategy(ABC):
    """Searches the allocations of one sequence.

    The runner calls `ask` until `done`, evaluates the proposals, and passes the outcomes to `tell`, in any order and
    any number at a time. A strategy has access to no model and no files. It never proposes allocations that are in the
    archive or that it proposed before, so it may continue where another one stopped. The full allocation comes first,
    alone, unless the archive holds it: from then on the threshold is known. Proposals depend on seed, archive and calls
    alone.

    A subclass yields its next candidates in `_candidates`; this class skips those already known.
    """

    name: ClassVar[str]
    """Name on the command line."""
    hint: ClassVar[str]
    """When to use it, in one line."""
    paths: ClassVar[bool] = False
    """Whether it proposes layer paths where the space allows them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._proposed: set[Allocation] = set()
        self._pending: set[Allocation] = set()
        """Proposed, or about to be, and without an outcome yet."""
        self._ready: list[Allocation] = []
        """Drawn by `done` and not proposed yet."""
        self._wanted = 1

    def ask(self, count: int) -> list[Proposal]:
        """At most `count` allocations to evaluate next; empty only while waiting for outcomes or when done."""
        full = self.problem.space.full
        self._wanted = max(1, count)
        if self.problem.archive.full is None:
            batch = [full] if count > 0 and full not in self._pending else []
            self._take(batch)
        else:
            batch, self._ready = self._ready[:count], self._ready[count:]
            batch += self._draw(count - len(batch))
        return [Proposal(allocation=one, family="full" if one == full else self._family(one)) for one in batch]

    def tell(self, outcomes: Seq[Outcome]) -> None:
        """Adds outcomes to the archive and learns from them."""
        self.problem.archive.add(outcomes)
        self._pending.difference_update(outcome.allocation for outcome in outcomes)
        self._learn(outcomes)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask or to wait for."""
        if self.problem.archive.full is None or self._pending:
            return False
        # Only drawing shows whether anything is left, and a batch often takes no longer than one.
        self._ready = self._draw(self._wanted)
        return not self._ready

    def known(self, allocation: Allocation) -> bool:
        """Whether evaluating the allocation would add nothing: the archive settles it, or it was proposed."""
        return allocation in self._proposed or self.problem.archive.settled(allocation)

    @abstractmethod
    def _candidates(self, count: int) -> Iterable[Allocation]:
        """Next candidates, best first; read until `count` new ones came or it ends.

        Called only when the full model's quality is known. May yield known allocations, which are skipped, and more
        than `count`, but must end. If nothing new comes and nothing is pending, the search is done.
        """

    def _learn(self, outcomes: Seq[Outcome]) -> None:  # noqa: B027 - most use the archive alone
        """Processes outcomes just added to the archive, in any order."""

    def _family(self, allocation: Allocation) -> str:
        """Family of a proposal other than the full allocation."""
        return self.name

    def _draw(self, count: int) -> list[Allocation]:
        drawn: list[Allocation] = []
        if count > 0:
            for allocation in self._candidates(count):
                if not self.known(allocation):
                    self._take([allocation])
                    drawn.append(allocation)
                if len(drawn) == count:
                    break
        return drawn

    def _take(self, allocations: list[Allocation]) -> None:
        self._proposed.update(allocations)
        self._pending.update(allocations)


class Rounds(Strategy):
    """A strategy that evaluates round after round: the next one is decided when all outcomes of the last are told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._round: Iterator[Allocation] = iter(())

    @cached_property
    def _plan(self) -> Iterator[Iterable[Allocation]]:
        return self._rounds()

    @abstractmethod
    def _rounds(self) -> Iterator[Iterable[Allocation]]:
        """The rounds: when the next one is taken, the archive settles all candidates of those before."""

    def _candidates(self, count: int) -> Iterable[Allocation]:
        while True:
            # Not `yield from`, which would close the round together with this generator.
            for allocation in self._round:  # noqa: UP028
                yield allocation
            following = None if self._pending else next(self._plan, None)
            if following is None:
                return
            self._round = iter(following)
