"""What goes to a worker and what comes back: plain values, so that they may travel between machines."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from oracle.errors import InputError
from oracle.search import Memory
from oracle.types import Outcome, Sequence

__all__ = ["HERE", "Ended", "Event", "Executor", "Found", "Item", "Note", "SetAside", "Workers"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sequence to search.

    Attributes:
        sequence: what is searched.
        partner: another sequence, whose references stand in for its own where luck is measured.
        seed: of its search.
        prompt_tokens: length of its prompt.
        prior: outcomes of an earlier run, from which this search goes on; not counted against its effort.
        exhausted: the numbers of free units below this one are proven by that run.
        known: numbered outcomes of this very search before it was interrupted: taken instead of being evaluated again.
    """

    sequence: Sequence
    partner: Sequence
    seed: int
    prompt_tokens: int
    prior: tuple[Outcome, ...] = ()
    exhausted: int = 0
    known: tuple[tuple[int, Outcome], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A round of a sequence's search, with the outcomes that are new.

    Attributes:
        sequence: its id.
        outcomes: with their numbers within the sequence.
        best: cost of the cheapest allocation so far that qualifies, as a share of all units' cost.
    """

    sequence: str
    outcomes: tuple[tuple[int, Outcome], ...]
    best: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A sequence's search has ended.

    Attributes:
        sequence: its id.
        evaluations: how many outcomes it has, those of an earlier run included.
        exhausted: the least number of free units of which not every mask has been tested.
        executions: layer x token units spent, as if every output had been decoded alone.
    """

    sequence: str
    evaluations: int
    exhausted: int
    executions: int


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A sequence that cannot be searched: its workers died, again and again."""

    sequence: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the run's log should say: of an `event`, and whatever else there is to it."""

    values: dict[str, Any]


Event = Found | Ended | SetAside
"""What becomes of a sequence."""


class Executor(Protocol):
    """Searches sequences, here or elsewhere; what is found does not depend on where, nor in which order."""

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """Searches some sequences, each with the same memory of others; yields what is found as it comes.

        May be closed at any time: what was yielded by then is worth keeping.
        """

    def hidden(self) -> dict[str, int]:
        """How often hidden states were found in the store (`hits`), computed (`misses`), and found `damaged`."""

    def close(self) -> None:
        """Lets go of whatever is held."""


Kind = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where sequences are searched.

    Attributes:
        kind: `local`, in this process, or `ray`.
        count: number of workers; None for one per processor core, or one per GPU. One if local.
        address: of a Ray cluster, such as `auto` or `ray://host:10001`; None to start one on this machine.
        threads: number of threads of each Ray worker.
    """

    kind: Kind = "local"
    count: int | None = None
    address: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"--executor needs one of {', '.join(get_args(Kind))}, not '{self.kind}'")
        if self.kind == "local" and (self.count not in (None, 1) or self.address is not None):
            raise InputError("--workers and --address need --executor ray: the local executor is this process")
        if min(1 if self.count is None else self.count, self.threads) < 1:
            raise InputError(f"--workers needs at least 1, not {self.count}")


HERE = Workers()
