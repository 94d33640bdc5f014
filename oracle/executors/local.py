"""Searches in this process, on the model that is loaded."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq

from oracle.executors.base import Event, Item, Note
from oracle.executors.searcher import SIDE_BY_SIDE, Searcher
from oracle.search import Memory

__all__ = ["Local"]


class Local:
    """One worker, here.

    Args:
        searcher: what searches.
    """

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """Searches some sequences, as many side by side as fill a batch."""
        for start in range(0, len(items), SIDE_BY_SIDE):
            yield from self._searcher.search(items[start : start + SIDE_BY_SIDE], memory)

    def hidden(self) -> dict[str, int]:
        """Hits, misses and damage of the store of hidden states."""
        return self._searcher.engine.hidden.counts()

    def close(self) -> None:
        """Holds nothing."""
