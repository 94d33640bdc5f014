"""The unit of execution: a layer, or its attention or MLP alone."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

__all__ = ["Call", "Part", "merged"]


class Part(IntEnum):
    """Part of a layer that runs, in the order of the layer's forward."""

    WHOLE = 0
    ATTENTION = 1
    MLP = 2


class Call(NamedTuple):
    """One layer execution. Calls sort by depth."""

    layer: int
    part: Part = Part.WHOLE


def merged(calls: Iterable[Call]) -> list[Call]:
    """The calls with attention directly followed by the MLP of the same layer replaced by the whole layer."""
    result: list[Call] = []
    for call in calls:
        if call.part == Part.MLP and result and result[-1] == Call(call.layer, Part.ATTENTION):
            result[-1] = Call(call.layer)
        else:
            result.append(call)
    return result
