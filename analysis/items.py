"""What an oracle chooses from: the best evaluation of each sequence at each cost that it was evaluated at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.grouping import BoolArray, CostArray, FloatArray, Groups, IntArray, group

__all__ = ["Items", "Levels", "levels", "quality_by_cost"]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The different costs of each sequence's evaluations, rising. K: of the sequence that has most.

    Attributes:
        row: the evaluations that cost no more than the full model, as rows; the others are left out.
        cell: for each of them its place in an array of shape (N, K), flattened.
        cost_NK: the costs; the full model's behind a sequence's last.
    """

    row: IntArray
    cell: IntArray
    cost_NK: CostArray


def levels(groups: Groups, full_cost: float) -> Levels:
    """Sorts the evaluations of each sequence by cost.

    Args:
        groups: the evaluations.
        full_cost: of the full model; allocations dearer than that (layer paths with repeats) are left out.
    """
    inside = np.flatnonzero(groups.cost <= full_cost)
    row = inside[np.lexsort((groups.cost[inside], groups.code[inside]))]
    code, cost = groups.code[row], groups.cost[row]
    first = np.append(True, code[1:] != code[:-1])
    rank = np.cumsum(first | np.append(True, cost[1:] != cost[:-1]))
    level = rank - rank[first][np.cumsum(first) - 1]
    cost_NK = np.full((len(groups.ids), level.max() + 1), full_cost, dtype=groups.cost.dtype)
    cost_NK[code, level] = cost
    return Levels(row=row, cell=code * cost_NK.shape[1] + level, cost_NK=cost_NK)


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a multiple-choice knapsack whose groups are the sequences.

    Attributes:
        cost_NK: costs, rising strictly among the items of a sequence.
        quality_NK: best quality at each; -inf where there is no item.
        full_cost: of the full model: what fractions are of.
        step: what all costs of a sequence differ by whole multiples of; None if that is not known.
    """

    cost_NK: CostArray
    quality_NK: FloatArray
    full_cost: float
    step: float | None

    @property
    def undominated(self) -> BoolArray:
        """Items that no item of the same sequence matches at a lower cost."""
        best_before = np.maximum.accumulate(self.quality_NK, axis=1)[:, :-1]
        return np.column_stack([self.quality_NK[:, 0] > -np.inf, self.quality_NK[:, 1:] > best_before])

    def costs(self, choice_N: IntArray) -> CostArray:
        """Cost of each sequence's choice, given as a column."""
        return self.cost_NK[np.arange(len(choice_N)), choice_N]

    def qualities(self, choice_N: IntArray) -> FloatArray:
        """Quality of each sequence's choice, given as a column."""
        return self.quality_NK[np.arange(len(choice_N)), choice_N]


def quality_by_cost(
    evaluations: pd.DataFrame, full_cost: float, metric: str, *, step: float | None = None
) -> tuple[Items, IntArray]:
    """Best quality of each sequence at each cost: the per-sequence frontier.

    Allocations dearer than the full model (layer paths with repeats) are left out.

    Args:
        evaluations: `sequence`, `number`, `cost` and the column `metric`.
        full_cost: of the full model: L where the cost is the number of layers.
        metric: column with the quality.
        step: what costs differ by whole multiples of, if they do; 1 by default where they are whole numbers.

    Returns:
        The items, and `number_NK`, the evaluation behind each (the lowest number among equals), -1 where there is
        none. Sequences in the order of their first rows.
    """
    groups = group(evaluations, metric)
    found = levels(groups, full_cost)
    row = found.row
    order = np.lexsort((groups.number[row], -groups.quality[row], found.cell))
    cells, first = np.unique(found.cell[order], return_index=True)
    rows = row[order[first]]
    quality_NK, number_NK = np.full(found.cost_NK.size, -np.inf), np.full(found.cost_NK.size, -1, dtype=np.int64)
    quality_NK[cells], number_NK[cells] = groups.quality[rows], groups.number[rows]
    whole = 1 if np.issubdtype(found.cost_NK.dtype, np.integer) else None
    items = Items(
        cost_NK=found.cost_NK,
        quality_NK=quality_NK.reshape(found.cost_NK.shape),
        full_cost=full_cost,
        step=step or whole,
    )
    return items, number_NK.reshape(found.cost_NK.shape)
