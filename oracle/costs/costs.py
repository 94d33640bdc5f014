"""What a generated token costs: each unit of an allocation, and what every allocation pays."""

import json
import math
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from oracle.config import Unit
from oracle.errors import InputError
from oracle.store.files import write_json
from oracle.types import Allocation

__all__ = ["MEASURES", "Costs", "Measure", "read_costs", "write_costs"]

Measure = Literal["FLOPs/token", "ms/token"]

MEASURES: tuple[Measure, ...] = get_args(Measure)

SCHEMA = 1
"""Version of the file's format; moves when a meaning does."""


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
        return self.overhead + sum(self.units)

    def of(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """Of a token under an allocation; a unit that runs twice counts twice.

        Args:
            allocation: the units that run.
            propagate: whether skipped layers still compute their keys and values (SkipLayer, Zeng et al. 2023, arXiv
                2311.15436, counts them so).

        Raises:
            InputError: if there is no such unit.
        """
        if any(not 0 <= unit < len(self.units) for unit in allocation):
            raise InputError(f"an allocation of units 0 to {len(self.units) - 1} is required, not {allocation}")
        ran = set(allocation)
        skipped = sum(cost for unit, cost in enumerate(self.states) if unit not in ran) if propagate else 0.0
        return self.overhead + sum(self.units[unit] for unit in allocation) + skipped

    def fraction(self, allocation: Allocation, *, propagate: bool = False) -> float:
        """The same as a share of a token at full depth, what every allocation pays included in both."""
        return self.of(allocation, propagate=propagate) / self.total

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


def write_costs(path: Path, costs: Seq[Costs], **more: Any) -> None:
    """Writes costs as JSON, whole or not at all, with whatever else the file is to say.

    Args:
        path: the file.
        costs: at most one for each unit of measure.
        more: further entries; readers of costs pass over them.

    Raises:
        InputError: if nothing can be written there.
    """
    try:
        write_json(path, {"schema": SCHEMA, "costs": [each.to_dict() for each in costs], **more})
    except OSError as error:
        raise InputError(f"cannot write costs to '{path}' ({error.strerror}); give another file") from error


def read_costs(path: Path, unit_of_measure: Measure) -> Costs:
    """The costs in one unit of measure out of a file of `write_costs`.

    Raises:
        InputError: if there is no such file, it is none of these, or it lacks the unit of measure.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read costs from '{path}' ({error}); give a file of 'oracle profile --out'") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("costs"), list):
        raise InputError(f"'{path}' is no file of costs of schema {SCHEMA}; write one with 'oracle profile --out FILE'")
    found = [entry for entry in content["costs"] if isinstance(entry, dict)]
    named = {str(entry.get("unit_of_measure")): entry for entry in found}
    if unit_of_measure not in named:
        raise InputError(f"'{path}' has costs in {', '.join(sorted(named)) or 'nothing'}, not in {unit_of_measure}")
    return Costs.from_dict(named[unit_of_measure])
