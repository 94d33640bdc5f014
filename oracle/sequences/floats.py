"""Numbers of low precision as their files mean them: 0.1 in float32 is 0.1, not 0.10000000149011612."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["shortest_floats"]

Convert = Callable[[Any], Any]


def shortest_floats(schema: pa.Schema) -> Convert:
    """Rewrites rows of a schema: numbers of float16 and float32 become the shortest decimals that are the same there.

    The rows are Python values by column, as from `pa.Table.to_pylist`; nested numbers are rewritten too.
    """
    return partial(_fields, {field.name: convert for field in schema if (convert := _convert(field.type)) is not None})


def _convert(kind: pa.DataType) -> Convert | None:
    """What converts a value of a type; None for types without such numbers."""
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        return partial(_shortest, np.float16 if pa.types.is_float16(kind) else np.float32)
    if pa.types.is_dictionary(kind):
        return _convert(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _convert(kind.value_type)
        return None if inner is None else partial(_each, inner)
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        inners = {field.name: inner for field in fields if (inner := _convert(field.type)) is not None}
        return partial(_fields, inners) if inners else None
    return None


def _shortest(precision: type[np.floating[Any]], value: float | None) -> float | None:
    return None if value is None else float(str(precision(value)))


def _each(inner: Convert, value: list[Any] | None) -> list[Any] | None:
    return None if value is None else [inner(one) for one in value]


def _fields(inners: dict[str, Convert], value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {name: inners[name](one) if name in inners else one for name, one in value.items()}
