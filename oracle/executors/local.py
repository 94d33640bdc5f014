"""Search on this machine: in this process, or in processes forked from it that share the loaded model."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from typing import Any, TypeVar

from oracle.executors.base import Event, Item, Note
from oracle.executors.searcher import Searcher
from oracle.executors.work import MAX_DEATHS, Work, requeue, split_work
from oracle.search import Memory
from oracle.utils.process_pool import DIED, ProcessPool

__all__ = ["Local", "Pool"]

Given = TypeVar("Given")


class Pool:
    """Workers that share one loaded model: forked processes, or this process alone.

    Args:
        searcher: of the loaded model.
        processes: number of workers; 1 for this process.
    """

    def __init__(self, searcher: Searcher, processes: int) -> None:
        self.searcher = searcher
        self.processes = (
            ProcessPool(processes, lambda request: request[0](searcher, *request[1:])) if (processes > 1) else None
        )

    def map(self, task: Callable[[Searcher, Given], Any], given: Seq[Given]) -> Iterator[tuple[int, Any]]:
        """The result of a task per item, as (place of the item, result) in the order of completion.

        Args:
            task: a function of a module. Should three workers die on an item, it is computed in this process.
            given: the items, the longest first.
        """
        if self.processes is None or len(given) < 2:
            for place, one in enumerate(given):
                yield place, task(self.searcher, one)
            return
        deaths: Counter[int] = Counter()
        waiting = deque(range(len(given)))
        for place, _, result in self.processes.run(waiting, lambda place: (_only, task, given[place])):
            if result is not DIED:
                yield place, result
                continue
            deaths[place] += 1
            if deaths[place] < MAX_DEATHS:
                waiting.append(place)
            else:
                yield place, task(self.searcher, given[place])

    def growth_mib(self) -> float:
        """Sum of the peaks of the workers' own memory; 0 in this process."""
        return sum(self.processes.growth.values()) if self.processes else 0.0

    def close(self) -> None:
        """Ends the workers."""
        if self.processes:
            self.processes.close()


def _only(searcher: Searcher, task: Callable[[Searcher, Given], Any], given: Given) -> Iterator[Any]:
    yield task(searcher, given)


def _search(searcher: Searcher, items: Seq[Item], memory: Memory) -> Iterator[Event | Note | dict[str, int]]:
    yield from searcher.search(items, memory)
    yield searcher.engine.hidden.counts()


class Local:
    """Executor on a pool.

    Args:
        pool: the workers.
        parts: number of parts into which sequences are split at least, so that as many workers are busy. What is
            searched together shares batches, whose shape decides the last digits of margins: the same parts give the
            same bits on any number of workers.
    """

    def __init__(self, pool: Pool, parts: int) -> None:
        self._pool = pool
        self._parts = parts
        self._hidden: dict[int, dict[str, int]] = {}

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """See `Executor.search`; events of all workers are interleaved."""
        parts = list(split_work(items, self._parts))
        processes = self._pool.processes
        if processes is None:
            for part in parts:
                yield from self._pool.searcher.search(part, memory)
            return
        waiting = deque(map(Work.of, parts))
        requests = processes.run(waiting, lambda work: (_search, list(work.items.values()), memory))
        for work, process, event in requests:
            if event is DIED:
                yield Note(values={"event": "a worker died", "process": process, "sequences": list(work.items)})
                yield from requeue(work, waiting)
            elif isinstance(event, dict):
                self._hidden[process] = event
            else:
                if not isinstance(event, Note):
                    work.take(event)
                yield event

    def hidden(self) -> dict[str, int]:
        """See `Executor.hidden`; sums over all workers, without the counts of dead ones."""
        total = Counter(self._pool.searcher.engine.hidden.counts())
        for counts in self._hidden.values():
            total.update(counts)
        return dict(total)

    def close(self) -> None:
        """Does nothing: the pool belongs to the caller."""
