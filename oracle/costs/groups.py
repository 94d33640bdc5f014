"""Units that are alike: what is measured of one of them holds for all."""

from dataclasses import dataclass

from oracle.costs.anatomy import decoder_layers, kinds, shapes
from oracle.costs.conditions import Conditions
from oracle.engine.schedule import Units
from oracle.models import LanguageModel
from oracle.models.layer_call import Call, Part
from oracle.types import Allocation

__all__ = ["Group", "group_units"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units whose parameters have the same names, shapes and dtypes, and whose attention is of the same kind.

    Attributes:
        units: their indices, rising.
        calls: the layer execution of each.
    """

    units: Allocation
    calls: tuple[Call, ...]

    @property
    def part(self) -> Part:
        """What of its layer a unit is."""
        return self.calls[0].part

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that they belong to."""
        return tuple(call.layer for call in self.calls)


def group_units(model: LanguageModel, conditions: Conditions) -> list[Group]:
    """The groups of a model's units, in order of their first.

    Raises:
        InputError: if attention and MLP cannot be skipped apart and the unit is `sublayer`.
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
