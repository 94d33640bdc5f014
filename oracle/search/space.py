"""The search space."""

from dataclasses import dataclass
from itertools import combinations
from typing import Self

from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["Space"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The skip masks (and layer paths, if allowed) of one model.

    Attributes:
        units: number of units of the model: L layers, or 2L sublayers.
        free: units that may be skipped, rising; the others run in every allocation.
        costs: cost of each unit per generated token (layers, FLOPs or milliseconds).
        paths: whether units may repeat or change their order.
    """

    units: int
    free: tuple[int, ...]
    costs: tuple[float, ...]
    paths: bool = False

    def __post_init__(self) -> None:
        if self.units < 1 or len(self.costs) != self.units or min(self.costs) < 0:
            raise InputError(f"a space of {self.units} units needs as many costs, none below 0, not {self.costs}")
        if list(self.free) != sorted(set(self.free)) or not set(self.free) <= set(range(self.units)):
            raise InputError(f"free units must rise within 0..{self.units - 1}, but {self.free} was given")

    @classmethod
    def of(cls, units: int, *, paths: bool = False) -> Self:
        """The space with every unit free, at a cost of one each."""
        return cls(units=units, free=tuple(range(units)), costs=(1.0,) * units, paths=paths)

    @property
    def full(self) -> Allocation:
        """Every unit, in order."""
        return tuple(range(self.units))

    @property
    def fixed(self) -> frozenset[int]:
        """Units that always run."""
        return frozenset(range(self.units)) - frozenset(self.free)

    def cost(self, allocation: Allocation) -> float:
        """Cost per generated token; a unit that runs twice counts twice."""
        return sum(self.costs[unit] for unit in allocation)

    def mask(self, chosen: set[int] | frozenset[int]) -> Allocation:
        """The skip mask of some free units, with the fixed ones added."""
        return tuple(sorted(self.fixed | chosen))

    def masks(self, count: int) -> list[Allocation]:
        """All skip masks of `count` free units, in lexicographic order."""
        return [self.mask(frozenset(chosen)) for chosen in combinations(self.free, count)]
