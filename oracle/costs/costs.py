"""What a generated token costs: each unit of an allocation, and what every allocation pays."""

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

__all__ = ["MEASURES", "Conditions", "Costs", "Measure"]

Measure = Literal["FLOPs/token", "ms/token"]

MEASURES: tuple[Measure, ...] = get_args(Measure)

FINE = 2**20
"""Grid of relative costs: one part in a million is far below what can be measured."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of one generated token, all in one unit of measure.

    Attributes:
        units: of each layer or sublayer that an allocation may run.
        states: of the keys and values alone, for each unit: what a skipped layer still costs where a policy keeps
            projecting them (`propagate`); 0 for an MLP.
        overhead: of what every allocation pays: embedding, final norm, vocabulary head.
        unit_of_measure: `FLOPs/token` or `ms/token` (of a batch's step, an equal share for each of its tokens).
        unit: what allocations are made of: `layer` or `sublayer`.
        context: tokens that the generated token attends to, itself included.
        batch: sequences decoded together; FLOPs per token do not depend on it.
        dtype: of the weights.
        device: which computed, in words.
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
        """Of a token at full depth."""
        return self.of(tuple(range(len(self.units))))

    @property
    def relative(self) -> tuple[float, ...]:
        """Costs of the units over their mean, for a search: on a grid of binary fractions, so that sums are exact.

        Raises:
            InputError: if no unit costs anything.
        """
        mean = math.fsum(self.units) / len(self.units)
        if not mean:
            raise InputError("a search needs units that cost something, but all of these cost 0; measure them again")
        return tuple(round(cost / mean * FINE) / FINE for cost in self.units)

    @property
    def step(self) -> float | None:
        """What the cost of any allocation, overhead aside, is a whole multiple of; None if nothing is."""
        prices = set(self.units)
        if len(prices) == 1:
            return max(prices) or None
        return float(math.gcd(*map(int, prices))) if all(price.is_integer() for price in prices) else None

    def of(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """Of a token under an allocation; a unit that runs twice counts twice.

        Args:
            allocation: the units that run.
            propagate: whether skipped layers still compute their keys and values (SkipLayer, Zeng et al. 2023, arXiv
                2311.15436, counts them so).

        Raises:
            InputError: if there is no such unit.
        """
        ran = set(allocation)
        skipped = sum(cost for unit, cost in enumerate(self.states) if unit not in ran) if propagate else 0.0
        return float(self.of_each([allocation])[0]) + skipped

    def of_each(self, allocations: Iterable[Seq[int]]) -> NDArray[np.float64]:
        """Of a token under each of many allocations; the same units of each price cost the same to the last bit.

        Raises:
            InputError: if there is no such unit.
        """
        return cost_of_each(allocations, self.units, self.overhead)

    def fraction(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """The same as a share of a token at full depth, what every allocation pays included in both."""
        return self.of(allocation, propagate=propagate) / self.total

    def check_meant_for(self, *, fingerprint: str, unit: str, dtype: str | None) -> None:
        """Makes sure that these are the costs of a model's units.

        Args:
            fingerprint: of the model.
            unit: what allocations are made of.
            dtype: of the weights; None where it is not known.

        Raises:
            InputError: if they are another's.
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
        """The costs that `to_dict` gave, after a way through JSON.

        Raises:
            InputError: if they are no costs.
        """
        try:
            numbers = {name: tuple(float(value) for value in values[name]) for name in ("units", "states")}
            return cls(**{**values, **numbers, "overhead": float(values["overhead"])})
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are no costs ({error}); write them with 'oracle profile --out FILE'") from error


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a generated token finds, and how often its time is taken.

    Attributes:
        unit: what allocations are made of: `layer`, or `sublayer` (attention and MLP apart).
        context: tokens that a generated token attends to, itself included.
        batch: sequences that are decoded together.
        rounds: how often everything is timed.
    """

    unit: Unit = "layer"
    context: int = 128
    batch: int = 1
    rounds: int = 30

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InputError(f"--unit needs one of {', '.join(get_args(Unit))}, not '{self.unit}'")
        for name in ("context", "batch", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} needs at least 1, not {getattr(self, name)}")

    def check_fits(self, longest: int | None) -> None:
        """Makes sure that a model takes inputs of this length.

        Args:
            longest: the model's context in tokens; None where it names none.

        Raises:
            InputError: if it does not.
        """
        if longest is not None and self.context > longest:
            raise InputError(f"--context needs at most the model's {longest} tokens, not {self.context}")
