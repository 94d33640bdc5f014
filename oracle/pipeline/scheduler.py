"""A search over many sequences: in waves, each of which knows what worked in those before it, and never lost."""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, TypeVar

from oracle.config import SearchConfig
from oracle.errors import Interrupted
from oracle.executors import SIDE_BY_SIDE, Ended, Event, Executor, Found, Item, Note
from oracle.search import Archive, Memory, Space
from oracle.store import RunWriter
from oracle.types import Outcome
from oracle.utils.progress import Advance, Watch

__all__ = ["Scheduler", "Stop", "never"]

One = TypeVar("One")

ROWS_PER_PART = 2048
"""Evaluations kept in memory before they are written as one part."""

SECONDS_PER_PART = 30.0
"""They are written after this time even if they are fewer."""

Stop = Callable[[], bool]
"""Asked after every round whether to stop."""


def never() -> bool:
    """Goes on to the end."""
    return False


@dataclass(kw_only=True)
class Scheduler:
    """What is original, and what of it is known already.

    Sequences are original in waves, the first of 8, each later one as large as all before it together. All sequences of
    a wave know what worked in the waves before it and nothing of one another: so what is found depends neither on how
    many workers there are nor on which of them is faster, nor on interruptions.

    Attributes:
        config: what to do.
        space: what may be allocated.
        items: the sequences, in order.
        ended: ids of those whose search has ended, or that were set aside, with the numbers of free units proven.
    """

    config: SearchConfig
    space: Space
    items: Seq[Item]
    ended: dict[str, int] = field(default_factory=dict)

    def run(self, executor: Executor, writer: RunWriter, watch: Watch, stop: Stop = never) -> None:
        """Searches what is not known yet, and writes it.

        Raises:
            Interrupted: if it was asked to stop; what was found is written.
        """
        journal = _Journal(writer, self.config.quality_columns)
        memory = Memory()
        with watch("Searching", len(self.items) * self.config.evaluations) as advance:
            progress = _Progress(self, advance)
            try:
                for wave in waves(self.items):
                    learned = copy.deepcopy(memory)
                    for event in self._events(wave, executor, memory, learned):
                        if isinstance(event, Note):
                            writer.log.warning(**event.values)
                            continue
                        journal.take(event)
                        progress.take(event)
                        if stop():
                            raise Interrupted(writer.folder)
                    memory = learned
            finally:
                journal.flush()

    def _events(self, wave: Seq[Item], executor: Executor, memory: Memory, learned: Memory) -> Iterator[Event | Note]:
        """What comes of a wave; what works is learned as its sequences end."""
        outcomes = {item.sequence.id: [*item.prior, *(outcome for _, outcome in item.known)] for item in wave}
        for item in wave:
            if item.sequence.id in self.ended:
                self._learn(learned, outcomes.pop(item.sequence.id), self.ended[item.sequence.id])
        for event in executor.search([item for item in wave if item.sequence.id not in self.ended], memory):
            if isinstance(event, Found):
                outcomes[event.sequence] += [outcome for _, outcome in event.outcomes]
            elif isinstance(event, Ended):
                self._learn(learned, outcomes.pop(event.sequence), event.exhausted)
            yield event

    def _learn(self, memory: Memory, outcomes: Seq[Outcome], exhausted: int) -> None:
        archive = Archive(self.space, self.config.criterion, self.config.tolerance)
        archive.add(outcomes)
        if archive.full is not None:
            archive.exhaust_below(exhausted)
            memory.learn(archive)


def waves(items: Seq[One]) -> Iterator[Seq[One]]:
    """Waves of 8, 8, 16, 32, ... sequences."""
    start, size = 0, SIDE_BY_SIDE
    while start < len(items):
        yield items[start : start + size]
        start += size
        size = start


class _Journal:
    """Writes events in parts, each of them after what it rests on."""

    def __init__(self, writer: RunWriter, qualities: Seq[str]) -> None:
        self._writer = writer
        self._qualities = qualities
        self._rows: list[tuple[str, int, Outcome]] = []
        self._ends: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def take(self, event: Event) -> None:
        """Keeps an event, and writes what has been kept if that is enough."""
        if isinstance(event, Found):
            self._rows += [(event.sequence, number, outcome) for number, outcome in event.outcomes]
        elif isinstance(event, Ended):
            self._ends.append(asdict(event))
        else:
            self._ends.append({"sequence": event.sequence, "evaluations": 0, "exhausted": 0, "set_aside": event.reason})
        if len(self._rows) >= ROWS_PER_PART or time.monotonic() - self._written >= SECONDS_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Writes what has been kept: evaluations first, so that a sequence that has ended is there as a whole."""
        if self._rows:
            self._writer.append(self._rows, self._qualities)
            self._rows = []
        if self._ends:
            self._writer.certify(self._ends)
            self._ends = []
        self._written = time.monotonic()


class _Progress:
    """What the bar shows: evaluations, their rate, and the mean budget of the sequences so far."""

    def __init__(self, scheduler: Scheduler, advance: Advance) -> None:
        self._advance = advance
        self._each = scheduler.config.evaluations
        self._seen: Counter[str] = Counter()
        self._best: dict[str, float] = {}
        self._found = 0
        self._began = time.monotonic()
        done = sum(self._each for item in scheduler.items if item.sequence.id in scheduler.ended)
        advance(done, "")

    def take(self, event: Event) -> None:
        """Moves the bar."""
        if isinstance(event, Found):
            self._best[event.sequence] = event.best
            self._found += len(event.outcomes)
            self._move(event.sequence, len(event.outcomes))
        else:
            # A strategy may end early, and a proof may add to what was planned.
            self._move(event.sequence, self._each - self._seen[event.sequence])

    def _move(self, sequence: str, count: int) -> None:
        self._seen[sequence] += count
        rate = self._found / max(time.monotonic() - self._began, 1e-9)
        mean = f"mean budget {100 * fmean(self._best.values()):.1f} %" if self._best else ""
        self._advance(count, f"{rate:.0f}/s  {mean}")
