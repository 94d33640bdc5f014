"""Sizes of the measurements."""

from dataclasses import dataclass

from oracle.errors import InputError
from oracle.utils.validation import check_types

__all__ = ["Sizes"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the measurements; with the defaults 24 sequences of the embedded model take less than a minute.

    Attributes:
        budgets: number of budgets of the similarity, evenly spread from no unit to all of them.
        sequences: maximum number of sequences for similarity and throughput, evenly spread over the run.
        new_tokens: tokens generated per row of a timed batch.
        rounds: number of timings per batch; the median counts.
        batches: numbers of rows decoded together.
        speedups: nominal speed-ups of unified skipping: L / speedup layers are kept.
    """

    budgets: int = 9
    sequences: int = 100
    new_tokens: int = 9
    rounds: int = 3
    batches: tuple[int, ...] = (1, 8, 32)
    speedups: tuple[int, ...] = (2, 3, 5)

    def __post_init__(self) -> None:
        check_types(self)
        for name, least in (("budgets", 2), ("sequences", 1), ("new_tokens", 2), ("rounds", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} needs at least {least}, not {getattr(self, name)}")
        for name in ("batches", "speedups"):
            if min(getattr(self, name), default=0) < 1:
                raise InputError(f"--{name} needs numbers of at least 1, not {getattr(self, name)}")
