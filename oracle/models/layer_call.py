"""What the adapter runs at a time: a layer, or its attention or its MLP alone."""

from enum import IntEnum
from typing import NamedTuple

__all__ = ["Call", "Part"]


class Part(IntEnum):
    """How much of a layer runs; the order is that of a layer's own forward."""

    WHOLE = 0
    ATTENTION = 1
    MLP = 2


class Call(NamedTuple):
    """One layer execution. Calls sort by depth."""

    layer: int
    part: Part = Part.WHOLE
