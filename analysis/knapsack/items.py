"""Items of the oracle's knapsack: the best evaluation of each sequence at each of its costs.

In shapes, X is the distinct costs of all sequences, or the flattened cells of (N C).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.grouping import BoolArray, CostArray, FloatArray, Groups, IntArray, group

__all__ = ["Items", "Levels", "Solution", "levels", "pieces", "quality_by_cost", "undominated"]

NOWHERE = np.iinfo(np.int64).max
"""Placeholder while the lowest evaluation number is determined."""

SPARSE = 4
"""A table of all (sequence, cost) pairs is used if at least one in this number of them has an evaluation."""

EVALUATIONS = 1_000_000
"""Evaluations processed at a time."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The distinct costs of each sequence's evaluations, rising.

    Attributes:
        row: indices of the evaluations that cost no more than the full model; the others are left out.
        cell: for each of them its place in an array of shape (N, C), flattened.
        cost_NC: the costs, padded with the full model's.
    """

    row: IntArray | slice
    cell: IntArray
    cost_NC: CostArray


def levels(groups: Groups, full_cost: float) -> Levels:
    """Sorts the evaluations of each sequence by cost; those dearer than the full model (layer paths) are left out."""
    inside_E = groups.cost <= full_cost
    row = slice(None) if inside_E.all() else np.flatnonzero(inside_E)
    code_E, N = groups.code[row], len(groups.ids)
    value_E, values = _values(groups.cost[row])
    X = len(values)
    # (Sequence, cost) pairs are looked up in a table of all possible ones, or sorted if that is sparse.
    if SPARSE * len(code_E) >= N * X:
        there_NX = np.zeros((N, X), dtype=bool)
        for piece in _pieces(code_E):
            there_NX[code_E[piece], value_E[piece]] = True
        count_N, cost = there_NX.sum(axis=1), np.broadcast_to(values, (N, X))[there_NX]
        level_NX, cell_E = np.cumsum(there_NX, axis=1, dtype=np.int32), np.empty_like(code_E)
        for piece in _pieces(code_E):
            level_E = level_NX[code_E[piece], value_E[piece]] - 1
            cell_E[piece] = code_E[piece] * count_N.max() + level_E
    else:
        pair, place_E = np.unique(code_E * X + value_E, return_inverse=True)
        count_N, cost = np.bincount(pair // X, minlength=N), values[pair % X]
        cell_E = np.flatnonzero(np.arange(count_N.max()) < count_N[:, None])[place_E]
    cost_NC = np.full((N, count_N.max()), full_cost, dtype=groups.cost.dtype)
    cost_NC[np.arange(cost_NC.shape[1]) < count_N[:, None]] = cost
    return Levels(row=row, cell=cell_E, cost_NC=cost_NC)


def _values(cost_E: CostArray) -> tuple[IntArray, CostArray]:
    """Codes that rise with the costs, and the cost of each code; some codes may be unused."""
    if np.issubdtype(cost_E.dtype, np.integer) and cost_E.min(initial=0) >= 0:
        return cost_E.astype(np.int64, copy=False), np.arange(cost_E.max(initial=0) + 1)
    value_E, values = pd.factorize(np.asarray(cost_E, dtype=np.float64), sort=True)
    return value_E, np.asarray(values, dtype=np.float64)


def _pieces(values_E: IntArray) -> Iterator[slice]:
    """Slices of rows: large temporary arrays take longer to allocate than to fill."""
    for first in range(0, len(values_E), EVALUATIONS):
        yield slice(first, first + EVALUATIONS)


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a multiple-choice knapsack whose groups are the sequences.

    Attributes:
        cost_NC: costs, rising strictly among the items of a sequence.
        quality_NC: best quality at each; -inf where there is no item.
        full_cost: of the full model, the denominator of fractions.
        step: step of which all differences between a sequence's costs are whole multiples; None if unknown.
    """

    cost_NC: CostArray
    quality_NC: FloatArray
    full_cost: float
    step: float | None

    @property
    def undominated(self) -> BoolArray:
        """Items that no cheaper item of the same sequence matches."""
        best_before = np.maximum.accumulate(self.quality_NC, axis=1)[:, :-1]
        return np.column_stack([self.quality_NC[:, 0] > -np.inf, self.quality_NC[:, 1:] > best_before])

    def costs(self, choice_N: IntArray) -> CostArray:
        """Cost of each sequence's choice, given as a column."""
        return self.cost_NC[np.arange(len(choice_N)), choice_N]

    def qualities(self, choice_N: IntArray) -> FloatArray:
        """Quality of each sequence's choice, given as a column."""
        return self.quality_NC[np.arange(len(choice_N)), choice_N]


def quality_by_cost(
    evaluations: pd.DataFrame, full_cost: float, metric: str, *, step: float | None = None
) -> tuple[Items, IntArray]:
    """Best quality of each sequence at each cost.

    Allocations dearer than the full model (layer paths with repeats) are left out.

    Args:
        evaluations: `sequence`, `number`, `cost` and the column `metric`.
        full_cost: of the full model: L where the cost is the number of layers.
        metric: column with the quality.
        step: step of which all differences between costs are whole multiples; None for 1 if they are whole numbers.

    Returns:
        The items, and `number_NK`, the evaluation behind each (the lowest number among equals), -1 without one.
        Sequences in the order of their first rows.
    """
    groups = group(evaluations, metric)
    found = levels(groups, full_cost)
    size, quality_E, number_E = found.cost_NC.size, groups.quality[found.row], groups.number[found.row]
    quality_X, number_X = np.full(size, -np.inf), np.full(size, NOWHERE)
    for piece in _pieces(found.cell):
        np.maximum.at(quality_X, found.cell[piece], quality_E[piece])
    for piece in _pieces(found.cell):
        cell = found.cell[piece]
        np.minimum.at(number_X, cell, np.where(quality_E[piece] < quality_X[cell], NOWHERE, number_E[piece]))
    number_X[number_X == NOWHERE] = -1
    whole = 1 if np.issubdtype(found.cost_NC.dtype, np.integer) else None
    items = Items(
        cost_NC=found.cost_NC,
        quality_NC=quality_X.reshape(found.cost_NC.shape),
        full_cost=full_cost,
        step=step or whole,
    )
    return items, number_X.reshape(found.cost_NC.shape)


PIECE = 100_000
"""Items processed at a time."""


def undominated(cost: CostArray, quality: FloatArray) -> IntArray:
    """Indices of the points that no cheaper or equally dear one matches in quality, by rising cost."""
    order = np.lexsort((-quality, cost))
    ordered = quality[order]
    return order[np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Undominated totals.

    Attributes:
        cost: total costs, rising strictly.
        quality: highest total quality at each, rising strictly.
        choose: columns of the items, shape (N,), of the point with a given index.
        shift: upper bound of the total cost that could be saved at equal total quality; 0 if exact.
    """

    cost: CostArray
    quality: FloatArray
    choose: Callable[[int], IntArray]
    shift: float


def pieces(items: Items) -> Iterator[slice]:
    """Slices of sequences that fit the processor's cache, which is several times faster."""
    N, C = items.quality_NC.shape
    rows = max(1, PIECE // C)
    for first in range(0, N, rows):
        yield slice(first, first + rows)
