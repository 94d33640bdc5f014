"""The executor contract, and the work items and events exchanged with workers: plain values that can be serialised."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from oracle.errors import InputError
from oracle.search import Memory
from oracle.types import Outcome, Sequence
from oracle.utils.text import one_of

__all__ = ["DEFAULT_WORKERS", "Ended", "Event", "Executor", "Found", "Item", "Note", "SetAside", "Workers"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sequence to search.

    Attributes:
        sequence: the sequence.
        partner: another sequence, whose references replace its own for the null (luck) measurement.
        seed: seed of its search.
        prompt_tokens: length of its prompt, in tokens.
        prior: outcomes of an earlier run, from which this search starts; not counted against its limits.
        exhausted: all numbers of free units below this one are exhausted by that run.
        known: numbered outcomes of this search before it was interrupted, reused instead of evaluated again.
        study: name of its study in the storage of optuna's studies; None without storage.
    """

    sequence: Sequence
    partner: Sequence
    seed: int
    prompt_tokens: int
    prior: tuple[Outcome, ...] = ()
    exhausted: int = 0
    known: tuple[tuple[int, Outcome], ...] = ()
    study: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The new outcomes of one round of a sequence's search.

    Attributes:
        sequence: its id.
        outcomes: outcomes with their numbers within the sequence.
        best: cost of the cheapest qualifying allocation so far, as a fraction of the full model's.
    """

    sequence: str
    outcomes: tuple[tuple[int, Outcome], ...]
    best: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A sequence's search has ended.

    Attributes:
        sequence: its id.
        evaluations: number of its outcomes, including those of an earlier run.
        exhausted: least number of free units of which not every mask has been tested.
        executions: layer x token units spent, counted as if every output had been decoded alone.
    """

    sequence: str
    evaluations: int
    exhausted: int
    executions: int


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A sequence that was given up because its workers died repeatedly."""

    sequence: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """An entry for the run's log: an `event` and its further values."""

    values: dict[str, Any]


Event = Found | Ended | SetAside
"""A step in the search of one sequence."""


class Executor(Protocol):
    """Searches sequences; the results depend neither on the location nor on the order of execution."""

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """Searches sequences, all with the same memory of others; yields events as they occur.

        The iterator may be closed at any time; the events yielded so far are valid.
        """

    def hidden(self) -> dict[str, int]:
        """Number of hidden states read from the store (`hits`), computed (`misses`), and found `damaged`."""

    def close(self) -> None:
        """Releases all resources."""


Kind = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Choice of workers.

    Attributes:
        kind: `local` (processes of this machine that share one model) or `ray`.
        count: number of workers; None for one per free processor core or GPU.
        address: address of a Ray cluster, such as `auto` or `ray://host:10001`; None to start one on this machine.
        threads: number of threads per worker; None for 1 on Ray. Locally None is 1, or OMP_NUM_THREADS if set: more
            than 1 means one process of so many threads, unless `count` is given.
    """

    kind: Kind = "local"
    count: int | None = None
    address: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"--executor needs {one_of(get_args(Kind), self.kind)}")
        if self.kind == "local" and self.address is not None:
            raise InputError(f"--address {self.address} needs --executor ray: the local executor is this machine")
        for name in ("count", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = "--workers" if name == "count" else "the number of threads"
                raise InputError(f"{option} needs at least 1, not {value}")


DEFAULT_WORKERS = Workers()
