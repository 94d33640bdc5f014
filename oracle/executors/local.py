"""Search in this process, on the loaded model."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq

from oracle.executors.base import Event, Item, Note
from oracle.executors.searcher import SIDE_BY_SIDE, Searcher
from oracle.search import Memory

__all__ = ["Local"]


class Local:
    """Executor that searches in this process."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """See `Executor.search`; up to `SIDE_BY_SIDE` sequences are searched together."""
        for start in range(0, len(items), SIDE_BY_SIDE):
            yield from self._searcher.search(items[start : start + SIDE_BY_SIDE], memory)

    def hidden(self) -> dict[str, int]:
        """See `Executor.hidden`."""
        return self._searcher.engine.hidden.counts()

    def close(self) -> None:
        """Does nothing."""
