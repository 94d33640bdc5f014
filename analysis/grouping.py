"""Evaluations as arrays, grouped by sequence."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.experiment import InputError

__all__ = ["Groups", "allocation_keys", "flatten", "group"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
CostArray = NDArray[np.int64] | NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Evaluations grouped by sequence, in the order of the sequences' first rows.

    Attributes:
        ids: the N sequence ids.
        code: position of each row's sequence in `ids`.
        number: number of the evaluation within its sequence.
        cost: per generated token: whole numbers of layers, or another cost.
        quality: the metric, higher is better.
        full: quality of the full model (number 0).
    """

    ids: pd.Index
    code: IntArray
    number: IntArray
    cost: CostArray
    quality: FloatArray
    full: FloatArray


def group(evaluations: pd.DataFrame, metric: str) -> Groups:
    """Groups evaluations (`sequence`, `number`, `cost` and the column `metric`) by sequence.

    Raises:
        InputError: if a sequence lacks its full-model evaluation or has several, or a quality is missing.
    """
    code_E, ids = pd.factorize(evaluations["sequence"])
    number_E = evaluations["number"].to_numpy(np.int64)
    quality_E = evaluations[metric].to_numpy(np.float64)
    fulls_N = np.bincount(code_E[number_E == 0], minlength=len(ids))
    if not len(ids):
        raise InputError("at least one evaluation is needed, got none: run the search first")
    if (fulls_N != 1).any():
        wrong = int(np.argmax(fulls_N != 1))
        raise InputError(
            f"every sequence needs one evaluation of the full model (number 0), {ids[wrong]!r} has "
            f"{fulls_N[wrong]}: finish the search, or leave that sequence out"
        )
    if np.isnan(quality_E).any():
        missing = ids[code_E[np.isnan(quality_E)][0]]
        raise InputError(
            f"criterion {metric!r} needs a value in every evaluation, sequence {missing!r} lacks one: "
            "choose another criterion, or leave that sequence out"
        )
    full_N = np.empty(len(ids))
    full_N[code_E[number_E == 0]] = quality_E[number_E == 0]
    return Groups(
        ids=pd.Index(ids),
        code=code_E.astype(np.int64, copy=False),
        number=number_E,
        cost=_costs(evaluations["cost"]),
        quality=quality_E,
        full=full_N,
    )


def _costs(column: pd.Series) -> CostArray:
    return column.to_numpy(np.int64 if pd.api.types.is_integer_dtype(column) else np.float64)


def flatten(allocations: pd.Series) -> tuple[IntArray, IntArray]:
    """Concatenated layers of all allocations, and the length of each allocation."""
    length_E = np.fromiter(map(len, allocations), np.int64, count=len(allocations))
    layers = np.fromiter(chain.from_iterable(allocations), np.int64, count=int(length_E.sum()))
    return layers, length_E


def allocation_keys(allocations: pd.Series) -> tuple[IntArray, BoolArray]:
    """Code per allocation, equal for equal ones, and whether it is a skip mask (strictly rising), not a layer path."""
    layers, length_E = flatten(allocations)
    end_E = np.cumsum(length_E)
    start_E = end_E - length_E
    raw = layers.astype(np.int32).tobytes()
    keys = [raw[4 * start : 4 * end] for start, end in zip(start_E.tolist(), end_E.tolist(), strict=True)]
    row = np.repeat(np.arange(len(length_E)), length_E)
    falls = (np.diff(layers) <= 0) & (np.diff(row) == 0)
    is_mask_E = np.ones(len(length_E), dtype=bool)
    is_mask_E[row[1:][falls]] = False
    code_E = pd.factorize(np.array([*keys, None], dtype=object)[:-1])[0]
    return code_E.astype(np.int64), is_mask_E
