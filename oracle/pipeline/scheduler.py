"""A search over many sequences in waves; each wave starts from what worked in earlier ones, and outcomes are stored."""

import copy
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, TypeVar

from oracle.config import SearchConfig
from oracle.errors import Interrupted
from oracle.executors import SIDE_BY_SIDE, Ended, Event, Executor, Found, Item, Note
from oracle.loggers import Loggers
from oracle.search import Archive, Memory, Space
from oracle.store import RunWriter
from oracle.types import Outcome
from oracle.utils.progress import Advance, Watch

__all__ = ["Scheduler", "Stop", "never"]

One = TypeVar("One")

ROWS_PER_PART = 2048
"""Number of evaluations buffered before they are written as one part."""

SECONDS_PER_PART = 30.0
"""Maximum time between two parts, in seconds."""

SECONDS_PER_LOG = 1.0
"""Least time between two calls of loggers, except at the end of a sequence."""

Stop = Callable[[], bool]
"""Called after every round; true stops the search."""


def never() -> bool:
    """A `Stop` that never stops."""
    return False


@dataclass(kw_only=True)
class Scheduler:
    """Searches sequences in waves and writes their outcomes.

    The first wave has 8 sequences, each later one as many as all before it together. All sequences of a wave start from
    what worked in earlier waves and do not share within the wave, so the results do not depend on the number or speed
    of workers, nor on interruptions.

    Attributes:
        config: settings.
        space: the search space.
        items: the sequences, in order.
        ended: ids of sequences whose search has ended or was set aside -> number of free units exhausted.
    """

    config: SearchConfig
    space: Space
    items: Seq[Item]
    ended: dict[str, int] = field(default_factory=dict)

    def run(
        self, executor: Executor, writer: RunWriter, watch: Watch, stop: Stop = never, loggers: Loggers | None = None
    ) -> None:
        """Searches the outstanding sequences and writes their outcomes.

        Raises:
            Interrupted: if it was stopped; all outcomes are written.
        """
        journal = _Journal(writer, self.config.quality_columns, [item.sequence.id for item in self.items])
        memory = Memory()
        with watch("Searching, at most", len(self.items) * self.config.evaluations) as advance:
            progress = _Progress(self, advance, loggers)
            try:
                for wave in waves(self.items):
                    learned = copy.deepcopy(memory)
                    for event in self._events(wave, executor, memory, learned):
                        if isinstance(event, Note):
                            writer.log.warning(**event.values)
                            continue
                        with _undisturbed():
                            journal.take(event)
                        progress.take(event)
                        if stop():
                            raise Interrupted(writer.folder)
                    memory = learned
            except KeyboardInterrupt as interrupt:
                raise Interrupted(writer.folder) from interrupt
            finally:
                with _undisturbed():
                    journal.flush()

    def _events(self, wave: Seq[Item], executor: Executor, memory: Memory, learned: Memory) -> Iterator[Event | Note]:
        """The events of a wave; the outcomes of each sequence are added to `learned` when it ends."""
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


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delays signals until the block has ended: half a write followed by another would store outcomes twice."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def waves(items: Seq[One]) -> Iterator[Seq[One]]:
    """Splits items into waves of 8, 8, 16, 32, ..."""
    start, size = 0, SIDE_BY_SIDE
    while start < len(items):
        yield items[start : start + size]
        start += size
        size = start


class _Journal:
    """Buffers events and writes them in parts: evaluations before the certificates that depend on them."""

    def __init__(self, writer: RunWriter, qualities: Seq[str], order: Seq[str]) -> None:
        self._place = {name: place for place, name in enumerate(order)}
        self._writer = writer
        self._qualities = qualities
        self._rows: list[tuple[str, int, Outcome]] = []
        self._ends: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def take(self, event: Event) -> None:
        """Buffers an event; flushes if the buffer is large or old enough."""
        if isinstance(event, Found):
            self._rows += [(event.sequence, number, outcome) for number, outcome in event.outcomes]
        elif isinstance(event, Ended):
            self._ends.append(asdict(event))
        else:
            self._ends.append({"sequence": event.sequence, "evaluations": 0, "exhausted": 0, "set_aside": event.reason})
        if len(self._rows) >= ROWS_PER_PART or time.monotonic() - self._written >= SECONDS_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Writes the buffer, evaluations first, so that every sequence with a certificate is complete on disk.

        In the order of the run: which worker was faster must not show in the files.
        """
        if self._rows:
            self._rows.sort(key=lambda row: (self._place[row[0]], row[1]))
            self._writer.append(self._rows, self._qualities)
            self._rows = []
        if self._ends:
            self._ends.sort(key=lambda end: self._place[end["sequence"]])
            self._writer.certify(self._ends)
            self._ends = []
        self._written = time.monotonic()


class _Progress:
    """Progress display and loggers: number of evaluations, evaluations per second, and mean budget so far."""

    def __init__(self, scheduler: Scheduler, advance: Advance, loggers: Loggers | None) -> None:
        self._advance = advance
        self._each = scheduler.config.evaluations
        self._seen: Counter[str] = Counter()
        self._best: dict[str, float] = {}
        self._found = 0
        self._began = time.monotonic()
        self._loggers, self._logged = loggers, 0.0
        self._known = sum(len(item.prior) + len(item.known) for item in scheduler.items)
        self._ended, self._set_aside = len(scheduler.ended), 0
        done = sum(self._each for item in scheduler.items if item.sequence.id in scheduler.ended)
        advance(done, "")

    def take(self, event: Event) -> None:
        """Advances the display by an event."""
        if isinstance(event, Found):
            self._best[event.sequence] = event.best
            self._found += len(event.outcomes)
            self._move(event.sequence, len(event.outcomes))
        else:
            # A strategy may end early, and a proof may add evaluations.
            self._move(event.sequence, self._each - self._seen[event.sequence])
            self._ended += isinstance(event, Ended)
            self._set_aside += not isinstance(event, Ended)
            self._log()
        if time.monotonic() - self._logged >= SECONDS_PER_LOG:
            self._log()

    def _log(self) -> None:
        """Passes the numbers so far to the loggers."""
        if self._loggers is None:
            return
        self._logged = time.monotonic()
        values = {
            "evaluations": float(self._known + self._found),
            "evaluations_per_second": self._rate(),
            "sequences_ended": float(self._ended),
            "sequences_set_aside": float(self._set_aside),
        }
        if self._best:
            values["mean_budget"] = fmean(self._best.values())
        self._loggers.scalars(self._known + self._found, values)

    def _rate(self) -> float:
        return self._found / max(time.monotonic() - self._began, 1e-9)

    def _move(self, sequence: str, count: int) -> None:
        self._seen[sequence] += count
        rate = self._rate()
        mean = f"mean budget {100 * fmean(self._best.values()):.1f} %" if self._best else ""
        self._advance(count, f"{rate:.0f}/s  {mean}")
