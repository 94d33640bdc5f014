"""Cost of a generated token: each unit of an allocation, and the overhead of every allocation."""

import math
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from oracle.allocations import cost_of_each
from oracle.config import Unit
from oracle.errors import InputError
from oracle.types import Allocation
from oracle.utils.text import one_of

__all__ = ["MEASURES", "Conditions", "Costs", "Measure"]

Measure = Literal["FLOPs/token", "ms/token"]

MEASURES: tuple[Measure, ...] = get_args(Measure)

FINE = 2**20
"""Grid of relative costs: one part in a million is far below measurement error."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of one generated token, in one unit of measure.

    Attributes:
        units: cost of each layer or sublayer.
        states: cost of the keys and values alone, per unit: of a skipped layer under a policy that still projects them
            (`propagate`); 0 for an MLP.
        overhead: cost under every allocation: embedding, final norm, vocabulary head.
        unit_of_measure: `FLOPs/token` or `ms/token` (of a batch's step, an equal share for each of its tokens).
        unit: `layer` or `sublayer`.
        context: tokens that the generated token attends to, itself included.
        batch: sequences decoded together; FLOPs per token do not depend on it.
        dtype: of the weights.
        device: device that computed, in words.
        model: its name.
        fingerprint: of the model's configuration, weights and vocabulary.
    """

    units: tuple[float, ...]
    states: tuple[float, ...]
    overhead: float
    unit_of_measure: Measure
    unit: Unit
    context: int
    batch: int
    dtype: str
    device: str
    model: str
    fingerprint: str

    def __post_init__(self) -> None:
        values = (*self.units, *self.states, self.overhead)
        if not self.units or len(self.units) != len(self.states):
            raise InputError(
                f"costs need a value of every unit and as many of their keys and values, not {len(self.units)} and "
                f"{len(self.states)}"
            )
        if not all(math.isfinite(value) and value >= 0 for value in values) or not self.total:
            raise InputError("costs need finite values of at least 0 that are not all 0; count or measure them again")
        for name, allowed in (("unit_of_measure", MEASURES), ("unit", get_args(Unit))):
            if getattr(self, name) not in allowed:
                raise InputError(f"costs need a {name} of {' or '.join(allowed)}, not '{getattr(self, name)}'")

    @property
    def total(self) -> float:
        """Cost of a token at full depth."""
        return self.of(tuple(range(len(self.units))))

    @property
    def relative(self) -> tuple[float, ...]:
        """Costs of the units over their mean, for a search: on a grid of binary fractions, so that sums are exact.

        Raises:
            InputError: if all units cost 0.
        """
        mean = math.fsum(self.units) / len(self.units)
        if not mean:
            raise InputError("a search needs units with costs above 0, but all of these cost 0; measure them again")
        return tuple(round(cost / mean * FINE) / FINE for cost in self.units)

    @property
    def step(self) -> float | None:
        """Step of which the cost of any allocation, without overhead, is a whole multiple; None if there is none."""
        prices = set(self.units)
        if len(prices) == 1:
            return max(prices) or None
        return float(math.gcd(*map(int, prices))) if all(price.is_integer() for price in prices) else None

    def of(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """Cost of a token under an allocation; a unit that runs twice counts twice.

        With `propagate`, skipped layers still compute their keys and values (SkipLayer, Zeng et al. 2023, arXiv
        2311.15436, counts them so).

        Raises:
            InputError: if an allocation runs an unknown unit.
        """
        ran = set(allocation)
        skipped = sum(cost for unit, cost in enumerate(self.states) if unit not in ran) if propagate else 0.0
        return float(self.of_each([allocation])[0]) + skipped

    def of_each(self, allocations: Iterable[Seq[int]]) -> NDArray[np.float64]:
        """Cost of a token under each of many allocations; see `oracle.allocations.cost_of_each`."""
        return cost_of_each(allocations, self.units, self.overhead)

    def fraction(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """The same as a share of a token at full depth, with the overhead included in both."""
        return self.of(allocation, propagate=propagate) / self.total

    def check_meant_for(self, *, fingerprint: str, unit: str, dtype: str | None) -> None:
        """Checks that these are the costs of a model's units; None for an unknown dtype of the weights.

        Raises:
            InputError: if they are of another model, unit or dtype.
        """
        wanted = {"fingerprint": fingerprint, "unit": unit, "dtype": dtype or self.dtype}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"the costs are those of {self.model}: {name} {getattr(self, name)}, but {value} is required; "
                    "write them for this model, unit and dtype with 'oracle profile --out FILE'"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The costs from `to_dict`, also after JSON.

        Raises:
            InputError: if the values are not valid costs.
        """
        try:
            numbers = {name: tuple(float(value) for value in values[name]) for name in ("units", "states")}
            return cls(**{**values, **numbers, "overhead": float(values["overhead"])})
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"invalid costs ({error}); write them with 'oracle profile --out FILE'") from error


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of a measurement: context and batch of the token, and number of rounds.

    Attributes:
        unit: `layer`, or `sublayer` (attention and MLP separately).
        context: tokens that a generated token attends to, itself included.
        batch: sequences decoded together.
        rounds: number of repetitions.
    """

    unit: Unit = "layer"
    context: int = 128
    batch: int = 1
    rounds: int = 30

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InputError(f"--unit needs {one_of(get_args(Unit), self.unit)}")
        for name in ("context", "batch", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} needs at least 1, not {getattr(self, name)}")

    def check_fits(self, longest: int | None) -> None:
        """Checks that the context is within a model's, in tokens; None if that is unlimited.

        Raises:
            InputError: if it is longer.
        """
        if longest is not None and self.context > longest:
            raise InputError(f"--context needs at most the model's {longest} tokens, not {self.context}")
