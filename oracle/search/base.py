"""The contract of a search strategy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Seq

from oracle.types import Outcome, Proposal

__all__ = ["Strategy"]


class Strategy(ABC):
    """Searches the allocations of one sequence.

    The runner calls `ask` until `done`, evaluates what it returns, and hands the outcomes to `tell`, in any order. A
    strategy knows no model and no files; it never proposes the same allocation twice.
    """

    @abstractmethod
    def ask(self, count: int) -> list[Proposal]:
        """At most `count` allocations to evaluate next; empty only if it waits for outcomes or is done."""

    @abstractmethod
    def tell(self, outcomes: Seq[Outcome]) -> None:
        """Takes in what evaluations returned."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether there is nothing left to ask."""
