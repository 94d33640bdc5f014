"""The data-set oracle: best mean quality at every mean budget, and where it equals the full model's."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.grouping import FloatArray, IntArray, group
from analysis.knapsack import Solution, solve_exact, solve_relaxed, work
from analysis.load import InputError

__all__ = ["EqualQuality", "Frontier", "assignment", "equal_quality", "oracle_frontier", "quality_by_cost"]

SLACK = 1e-9
"""Two mean qualities closer than this are equal: sums of floats depend on their order."""

EXACT_LIMIT = 500_000_000
"""Cell updates up to which the oracle is solved exactly: a second or two, at most 500 MB of choices."""


def quality_by_cost(evaluations: pd.DataFrame, layers: int, metric: str) -> tuple[FloatArray, IntArray]:
    """Best quality of each sequence at exactly each cost: the per-sequence frontier.

    Allocations dearer than the full model (layer paths with repeats) are left out.

    Args:
        evaluations: `sequence`, `number`, `cost` and the column `metric`.
        layers: L.
        metric: column with the quality.

    Returns:
        `quality_NK` with K = L + 1, -inf where nothing was evaluated, and `number_NK`, the evaluation that
        has it (the lowest number among equals), -1 where there is none. Sequences in the order of their
        first rows.
    """
    groups = group(evaluations, metric)
    K = layers + 1
    inside = np.flatnonzero(groups.cost < K)
    cell = groups.code[inside] * K + groups.cost[inside]
    order = np.lexsort((groups.number[inside], -groups.quality[inside], cell))
    cells, first = np.unique(cell[order], return_index=True)
    rows = inside[order[first]]
    quality_NK = np.full(len(groups.ids) * K, -np.inf)
    number_NK = np.full(len(groups.ids) * K, -1, dtype=np.int64)
    quality_NK[cells], number_NK[cells] = groups.quality[rows], groups.number[rows]
    return quality_NK.reshape(-1, K), number_NK.reshape(-1, K)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Best mean quality of the oracle against the mean fraction of layers.

    Attributes:
        fraction: mean fractions at which the quality rises, strictly rising.
        quality: best mean quality at each.
        layers: L.
        exact: whether every optimum is here; otherwise only the breakpoints of the linear relaxation are,
            each optimal at its own cost.
        gap: how much higher the best mean quality can be at a budget between two points; 0 if exact.
    """

    fraction: FloatArray
    quality: FloatArray
    layers: int
    exact: bool
    gap: float
    solution: Solution

    def quality_at(self, fraction: FloatArray) -> FloatArray:
        """Best mean quality under each mean budget; NaN where even the cheapest allocations cost more."""
        index = np.searchsorted(self.fraction, np.asarray(fraction) + SLACK, side="right") - 1
        return np.where(index < 0, np.nan, self.quality[index])

    def costs(self, fraction: float) -> IntArray:
        """Layers given to each sequence, shape (N,), by the best choice under a mean budget.

        Raises:
            InputError: the budget is less than the cheapest evaluated allocations cost.
        """
        index = int(np.searchsorted(self.fraction, fraction + SLACK, side="right")) - 1
        if index < 0:
            raise InputError(
                f"the mean budget must be at least {self.fraction[0]:.4f}, the cost of the cheapest "
                f"allocations evaluated; got {fraction:.4f}: raise it, or evaluate cheaper allocations"
            )
        return self.solution.choose(index)


def oracle_frontier(quality_NK: FloatArray, *, exact: bool | None = None) -> Frontier:
    """Solves the oracle at all mean budgets at once.

    Multiple-choice knapsack (Glavas et al. 2024, section on the oracle): a sequence is a group, its items are
    (cost, best quality at that cost), the capacity is the mean budget times the number of sequences.

    Args:
        quality_NK: as returned by `quality_by_cost`.
        exact: whether to solve it exactly; by default if that takes at most `EXACT_LIMIT` cell updates.
    """
    N, K = quality_NK.shape
    if exact is None:
        exact = work(quality_NK) <= EXACT_LIMIT
    solution = solve_exact(quality_NK) if exact else solve_relaxed(quality_NK)
    return Frontier(
        fraction=solution.cost / (N * (K - 1)),
        quality=solution.quality / N,
        layers=K - 1,
        exact=exact,
        gap=solution.gap / N,
        solution=solution,
    )


@dataclass(frozen=True, kw_only=True)
class EqualQuality:
    """Where the oracle reaches the full model.

    Attributes:
        fraction: least mean fraction with mean quality >= `full_quality` - tolerance.
        quality: mean quality there.
        full_quality: mean quality of the full model.
        costs: layers given to each sequence.
        frontier: what it was read from; if that is not exact, `fraction` is too high by at most one step of
            one sequence, 1 / N at the very most.
    """

    fraction: float
    quality: float
    full_quality: float
    costs: IntArray
    frontier: Frontier


def equal_quality(
    quality_NK: FloatArray, full_N: FloatArray, *, tolerance: float, exact: bool | None = None
) -> EqualQuality:
    """Least total cost at which the oracle's mean quality >= the full model's - tolerance.

    Means are compared with a slack of 1e-9. Among the assignments of that total cost the one of highest
    mean quality is taken; among equals the one that gives the last sequence the fewest layers, then the last
    but one, and so on.

    Args:
        quality_NK: as returned by `quality_by_cost`.
        full_N: quality of the full model, same order.
        tolerance: allowed loss of mean quality, in units of the metric.
        exact: see `oracle_frontier`.
    """
    frontier = oracle_frontier(quality_NK, exact=exact)
    target = float(np.mean(full_N)) - tolerance - SLACK
    index = int(np.searchsorted(frontier.quality, target))
    if index == len(frontier.quality):
        raise InputError("the full model must be among the items, it is not: keep number 0 of every sequence")
    return EqualQuality(
        fraction=float(frontier.fraction[index]),
        quality=float(frontier.quality[index]),
        full_quality=float(np.mean(full_N)),
        costs=frontier.solution.choose(index),
        frontier=frontier,
    )


def assignment(evaluations: pd.DataFrame, number_NK: IntArray, costs: IntArray, metric: str) -> pd.DataFrame:
    """The evaluations behind a choice of costs: `sequence`, `number`, `allocation`, `cost`, `quality`.

    Args:
        evaluations: the table that `quality_by_cost` was given.
        number_NK: what it returned.
        costs: layers given to each sequence.
        metric: column with the quality.
    """
    ids = pd.factorize(evaluations["sequence"])[1]
    chosen = pd.DataFrame({"sequence": ids, "number": number_NK[np.arange(len(ids)), costs]})
    table = chosen.merge(evaluations, on=["sequence", "number"], how="left", validate="one_to_one")
    return table.rename(columns={metric: "quality"})[["sequence", "number", "allocation", "cost", "quality"]]
