"""Milliseconds per generated token, measured on this machine through the calls that the engine makes.

A token is decoded whole, by the untouched model's own forward; in parts, one execution after another; and only its keys
and values, layer by layer. The three take turns, so that changes of the machine's speed affect all alike, and in each
the weights stream through the processor's caches as in text generation. Separate attention and MLP add up to more than
their layer: the norm of the absent branch runs too, as in the engine.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from oracle.costs.anatomy import decoder_layers, kinds, provenance, shapes
from oracle.costs.bench import Bench
from oracle.costs.costs import Conditions, Costs
from oracle.engine.schedule import Units
from oracle.models import LanguageModel
from oracle.models.layer_call import Call, Part
from oracle.types import Allocation
from oracle.utils.progress import Watch, silent

__all__ = ["Group", "Latency", "Spread", "group_units", "measure_latency"]

WARM_UP = 3
"""Uncounted rounds, in which memory is allocated and kernels are chosen."""

Times = NDArray[np.float64]
"""Milliseconds per token: one row per round, one column per lap."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quartiles of repeated measurements, in ms/token."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, times: Times) -> Self:
        """Quartiles of any number of measurements."""
        low, median, high = np.percentile(times, [25, 50, 75]).tolist()
        return cls(low=low, median=median, high=high)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units, rising, with equal names, shapes and dtypes of parameters and kind of attention, and their calls."""

    units: Allocation
    calls: tuple[Call, ...]

    @property
    def part(self) -> Part:
        """Part of its layer that each unit is."""
        return self.calls[0].part

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of the units."""
        return tuple(call.layer for call in self.calls)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Measured times.

    Attributes:
        costs: per unit the median of its group, over all of its units and rounds, so that units of equal shapes do not
            differ by noise.
        groups: the units that share a median.
        spreads: per group.
        overhead: embedding, final norm and vocabulary head.
        whole: a token at full depth, by one forward of the untouched model.
        rounds: repetitions.
    """

    costs: Costs
    groups: tuple[Group, ...]
    spreads: tuple[Spread, ...]
    overhead: Spread
    whole: Spread
    rounds: int

    @property
    def parts_to_whole(self) -> float:
        """Sum of the parts as a share of the whole token: 1 if calling the parts separately costs nothing."""
        return self.costs.total / self.whole.median


@torch.inference_mode()
def measure_latency(model: LanguageModel, conditions: Conditions, *, watch: Watch = silent) -> Latency:
    """Times every unit, the overhead, and a whole token.

    Raises:
        InputError: if the context is too long, or attention and MLP cannot be skipped separately.
    """
    conditions.check_fits(model.context)
    groups = group_units(model, conditions)
    order = sorted((unit, call) for group in groups for unit, call in zip(group.units, group.calls, strict=True))
    bench = Bench(model.decoder, [call for _, call in order], conditions)
    samples: list[list[list[float]]] = [[], [], []]
    with watch("Measuring", conditions.rounds) as advance:
        for number in range(-WARM_UP, conditions.rounds):
            for kept, take in zip(samples, (bench.whole, bench.parts, bench.states), strict=True):
                laps = take()
                if number >= 0:
                    kept.append(laps)
            advance(number >= 0, "")
    whole, parts, states = (np.array(kept) / conditions.batch for kept in samples)
    return _pooled(model, conditions, tuple(groups), (whole, parts, states))


def _pooled(
    model: LanguageModel, conditions: Conditions, groups: tuple[Group, ...], times: tuple[Times, Times, Times]
) -> Latency:
    """Medians per group."""
    whole, parts, states = times
    begin, runs, finish = parts[:, 0], parts[:, 1:-1], parts[:, -1]
    spreads = tuple(Spread.of(runs[:, group.units]) for group in groups)
    overhead = Spread.of(begin + finish)
    units, own = np.zeros(runs.shape[1]), np.zeros(runs.shape[1])
    for group, spread in zip(groups, spreads, strict=True):
        units[list(group.units)] = spread.median
        if group.part != Part.MLP:
            own[list(group.units)] = np.median(states[:, group.layers])
    costs = Costs(
        units=tuple(units.tolist()),
        states=tuple(own.tolist()),
        overhead=overhead.median,
        unit_of_measure="ms/token",
        **provenance(model, conditions),
    )
    return Latency(
        costs=costs,
        groups=groups,
        spreads=spreads,
        overhead=overhead,
        whole=Spread.of(whole),
        rounds=conditions.rounds,
    )


def group_units(model: LanguageModel, conditions: Conditions) -> list[Group]:
    """Groups of a model's units, in order of their first units.

    Raises:
        InputError: if the unit is `sublayer` and attention and MLP cannot be skipped separately.
    """
    units = Units(model.decoder, conditions.unit)
    layers = decoder_layers(model.decoder)[1]
    kind = kinds(model.network.config.get_text_config(), len(layers))
    alike: dict[object, list[tuple[int, Call]]] = {}
    for unit in range(units.count):
        (call,) = units.calls((unit,))
        attends = None if call.part == Part.MLP else kind[call.layer]
        alike.setdefault((call.part, shapes(layers[call.layer], call.part), attends), []).append((unit, call))
    return [
        Group(units=tuple(unit for unit, _ in members), calls=tuple(call for _, call in members))
        for members in alike.values()
    ]
