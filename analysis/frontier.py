"""The data-set oracle: best mean quality at every mean budget, and where it equals the full model's.

Where costs have a common step, such as a layer, every optimum is found. Otherwise, and where that would take too long,
the curve is that of costs rounded to steps, or has only the breakpoints of the linear relaxation, and a single point is
solved exactly when it is asked for.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.core import best_within, cheapest_with
from analysis.grouping import CostArray, FloatArray, IntArray
from analysis.items import Items
from analysis.knapsack import Solution, solve_in_steps, solve_relaxed, work
from analysis.load import InputError

__all__ = ["EqualQuality", "Frontier", "assignment", "equal_quality", "oracle_frontier"]

SLACK = 1e-9
"""Two mean qualities closer than this are equal: sums of floats depend on their order."""

EXACT_LIMIT = 500_000_000
"""Cell updates up to which the oracle is solved exactly: a second or two, at most 500 MB of choices."""

ROUNDED_LIMIT = 50_000_000
"""Cell updates spent on costs that are rounded to steps."""

STEPS = (200, 5000)
"""Steps that the full model's cost is cut into: no fewer, for then the relaxation is as good, and no more."""


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Best mean quality of the oracle against the mean fraction of the full model's cost.

    Attributes:
        fraction: mean fractions at which the quality rises, strictly rising.
        quality: best mean quality at each.
        exact: whether every optimum is here.
        shift: by how much less a mean fraction may do for the same mean quality; 0 if exact.
        items: what it chooses from.
        solution: totals, and the choices behind them.
    """

    fraction: FloatArray
    quality: FloatArray
    exact: bool
    shift: float
    items: Items
    solution: Solution

    def quality_at(self, fraction: FloatArray) -> FloatArray:
        """Mean quality of the last point within each mean budget; NaN where even the cheapest allocations cost more."""
        index = np.searchsorted(self.fraction, np.asarray(fraction) + SLACK, side="right") - 1
        return np.where(index < 0, np.nan, self.quality[index])

    def costs(self, fraction: float) -> CostArray:
        """Cost of each sequence, shape (N,), in the best choice under a mean budget.

        Raises:
            InputError: the budget is less than the cheapest evaluated allocations cost.
        """
        index = int(np.searchsorted(self.fraction, fraction + SLACK, side="right")) - 1
        if index < 0:
            raise InputError(
                f"the mean budget must be at least {self.fraction[0]:.4f}, the cost of the cheapest "
                f"allocations evaluated; got {fraction:.4f}: raise it, or evaluate cheaper allocations"
            )
        if self.exact:
            return self.items.costs(self.solution.choose(index))
        total = (fraction + SLACK) * len(self.items.cost_NK) * self.items.full_cost
        return self.items.costs(best_within(self.items, total).choice)


def oracle_frontier(items: Items, *, exact: bool | None = None) -> Frontier:
    """Solves the oracle at all mean budgets at once.

    Multiple-choice knapsack (Glavas et al. 2024, section on the oracle): a sequence is a group, its items are
    (cost, best quality at that cost), the capacity is the mean budget times the number of sequences.

    Args:
        items: as returned by `quality_by_cost`.
        exact: whether to find every optimum, for which the costs need a common step, or only the breakpoints of the
            linear relaxation; by default every optimum if that takes at most `EXACT_LIMIT` cell updates, then those
            of rounded costs.
    """
    N = len(items.cost_NK)
    step = items.step if exact else None if exact is False else _step(items)
    solution = solve_relaxed(items) if step is None else solve_in_steps(items, step)
    return Frontier(
        fraction=solution.cost / (N * items.full_cost),
        quality=solution.quality / N,
        exact=solution.shift == 0,
        shift=solution.shift / (N * items.full_cost),
        items=items,
        solution=solution,
    )


def _step(items: Items) -> float | None:
    """The step of the costs if there is time for it, else the finest for which there is; None if that is too coarse."""
    if items.step is not None and work(items, items.step) <= EXACT_LIMIT:
        return items.step
    fewest, most = STEPS
    steps = int(most * min(1.0, ROUNDED_LIMIT / work(items, items.full_cost / most)))
    return items.full_cost / steps if steps >= fewest else None


@dataclass(frozen=True, kw_only=True)
class EqualQuality:
    """Where the oracle reaches the full model.

    Attributes:
        fraction: least mean fraction of the full model's cost with mean quality >= `full_quality` - tolerance.
        quality: mean quality there.
        full_quality: mean quality of the full model.
        costs: of each sequence.
        gap: by how much `fraction` may be too high; 0 unless the search for it grew beyond all bounds.
        frontier: the whole curve.
    """

    fraction: float
    quality: float
    full_quality: float
    costs: CostArray
    gap: float
    frontier: Frontier


def equal_quality(items: Items, full_N: FloatArray, *, tolerance: float, exact: bool | None = None) -> EqualQuality:
    """Least total cost at which the oracle's mean quality >= the full model's - tolerance.

    Means are compared with a slack of 1e-9. Among the assignments of that total cost the one of highest mean quality
    is taken; among equals, where every optimum of the frontier is known, the one that gives the last sequence the
    least cost, then the last but one, and so on.

    Args:
        items: as returned by `quality_by_cost`.
        full_N: quality of the full model, same order.
        tolerance: allowed loss of mean quality, in units of the metric.
        exact: of the frontier, see `oracle_frontier`; the point itself is exact in any case.
    """
    frontier = oracle_frontier(items, exact=exact)
    N, full_quality, gap = len(full_N), float(np.mean(full_N)), 0.0
    target = full_quality - tolerance - SLACK
    index = int(np.searchsorted(frontier.quality, target))
    if index == len(frontier.quality):
        raise InputError("the full model must be among the items, it is not: keep number 0 of every sequence")
    if frontier.exact:
        choice_N = frontier.solution.choose(index)
        fraction, quality = frontier.fraction[index], frontier.quality[index]
    else:
        closed = cheapest_with(items, target * N)
        choice_N, gap = closed.choice, closed.gap / (N * items.full_cost)
        fraction, quality = items.costs(choice_N).sum() / (N * items.full_cost), items.qualities(choice_N).mean()
    return EqualQuality(
        fraction=float(fraction),
        quality=float(quality),
        full_quality=full_quality,
        costs=items.costs(choice_N),
        gap=gap,
        frontier=frontier,
    )


def assignment(evaluations: pd.DataFrame, number_NK: IntArray, costs: CostArray, metric: str) -> pd.DataFrame:
    """The evaluations behind a choice of costs: `sequence`, `number`, `allocation`, `cost`, `quality`.

    Args:
        evaluations: the table that `quality_by_cost` was given.
        number_NK: what it returned.
        costs: of each sequence, one of those that it was evaluated at.
        metric: column with the quality.
    """
    ids = pd.factorize(evaluations["sequence"])[1]
    n, k = np.nonzero(number_NK >= 0)
    frontier = pd.DataFrame({"sequence": ids[n], "number": number_NK[n, k], "chosen": costs[n]})
    table = frontier.merge(evaluations, on=["sequence", "number"], how="left", validate="one_to_one")
    table = table[table["cost"] == table["chosen"]].reset_index(drop=True)
    return table.rename(columns={metric: "quality"})[["sequence", "number", "allocation", "cost", "quality"]]
