"""Work for workers: how a wave of sequences is split, and what becomes of the work of a worker that died."""

import itertools
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import TypeVar

from oracle.executors.base import Event, Found, Item, SetAside
from oracle.executors.searcher import SIDE_BY_SIDE

__all__ = ["MAX_DEATHS", "Work", "requeue", "split_work"]

One = TypeVar("One")

MAX_DEATHS = 3
"""Number of worker deaths after which a sequence is set aside."""


@dataclass(kw_only=True)
class Work:
    """Sequences for one worker, by id, and the number of workers that died on them."""

    items: dict[str, Item]
    deaths: int = 0

    @classmethod
    def of(cls, items: Seq[Item]) -> "Work":
        """New work on sequences that are searched together."""
        return cls(items={item.sequence.id: item for item in items})

    def take(self, event: Event) -> None:
        """Records an event, so that a replacement worker starts from it."""
        item = self.items[event.sequence]
        if isinstance(event, Found):
            self.items[event.sequence] = replace(item, known=item.known + event.outcomes)
        else:
            del self.items[event.sequence]


def split_work(items: Seq[One], workers: int) -> Iterator[Seq[One]]:
    """Splits items into parts of at most `SIDE_BY_SIDE`, of nearly equal size and number per worker."""
    rounds = -(-len(items) // (workers * SIDE_BY_SIDE))
    count = min(len(items), rounds * workers)
    ends = [len(items) * place // count for place in range(count + 1)] if count else [0]
    for start, end in itertools.pairwise(ends):
        yield items[start:end]


def requeue(work: Work, waiting: deque[Work]) -> Iterator[SetAside]:
    """Queues the sequences of a dead worker again, one by one; yields those on which too many workers died."""
    deaths = work.deaths + 1
    for name, item in work.items.items():
        if deaths < MAX_DEATHS:
            waiting.appendleft(Work(items={name: item}, deaths=deaths))
        else:
            yield SetAside(sequence=name, reason=f"{deaths} workers died on it")
