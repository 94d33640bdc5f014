"""The data-set oracle: best mean quality at every mean budget, and the budget at which it equals the full model's.

Where costs have a common step, such as a layer, every optimum is found. Otherwise, and where that would take too long,
the curve is that of costs rounded to steps, or the linear relaxation's with points filled in between its breakpoints;
single points are solved exactly on request.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from analysis.display import Shown
from analysis.experiment import InputError
from analysis.grouping import CostArray, FloatArray, IntArray
from analysis.knapsack.dynamic_program import solve_in_steps, work
from analysis.knapsack.exact import best_within, cheapest_with
from analysis.knapsack.filled import solve_filled
from analysis.knapsack.items import Items, Solution
from analysis.knapsack.relaxation import Envelope, envelope, solve_relaxed

__all__ = ["EqualQuality", "Frontier", "Point", "equal_quality", "oracle_at", "oracle_frontier"]

SLACK = 1e-9
"""Mean qualities closer than this are equal: sums of floats depend on their order."""

EXACT_LIMIT = 500_000_000
"""Maximum number of cell updates of an exact solution: a second or two, at most 250 MB of totals."""

ROUNDED_LIMIT = 50_000_000
"""Maximum number of cell updates for costs rounded to steps."""

STEPS = (200, 5000)
"""Minimum and maximum number of steps of the full model's cost; with fewer the relaxation is as good."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The oracle's choice under a mean budget.

    Attributes:
        fraction: mean fraction of the full model's cost that it spends.
        quality: mean quality.
        gap: upper bound of the shortfall from the best mean quality.
        costs: cost per sequence, shape (N,).
    """

    fraction: float
    quality: float
    gap: float
    costs: CostArray

    @classmethod
    def of(cls, items: Items, choice_N: IntArray, *, gap: float) -> "Point":
        """The means of a choice, given as columns of the items."""
        costs = items.costs(choice_N)
        fraction = float(costs.sum() / (len(costs) * items.full_cost))
        return cls(fraction=fraction, quality=float(items.qualities(choice_N).mean()), gap=gap, costs=costs)


@dataclass(frozen=True, kw_only=True, repr=False)
class Frontier(Shown):
    """Best mean quality of the oracle against the mean fraction of the full model's cost.

    Attributes:
        fraction: mean fractions at which the quality rises, strictly rising.
        quality: best mean quality at each.
        exact: whether every optimum is included.
        shift: upper bound of the mean fraction that could be saved at equal mean quality; 0 if exact.
        gap: upper bound of the shortfall from the best mean quality at any mean budget; 0 if exact.
        items: the items.
        solution: totals, and the choices behind them.
        hull: the linear relaxation that bounds it; None if exact.
    """

    fraction: FloatArray
    quality: FloatArray
    exact: bool
    shift: float
    gap: float
    items: Items
    solution: Solution
    hull: Envelope | None

    def quality_at(self, fraction: FloatArray) -> FloatArray:
        """Mean quality of the last point within each mean budget; NaN below the cost of the cheapest allocations."""
        index = np.searchsorted(self.fraction, np.asarray(fraction) + SLACK, side="right") - 1
        return np.where(index < 0, np.nan, self.quality[index])

    def at(self, fraction: float) -> Point:
        """The best choice under a mean budget, solved separately if the curve is not exact.

        Raises:
            InputError: if the budget is below the cost of the cheapest evaluated allocations.
        """
        if self.hull is not None:
            return oracle_at(self.items, fraction, hull=self.hull)
        _check_budget(fraction, float(self.fraction[0]))
        index = int(np.searchsorted(self.fraction, fraction + SLACK, side="right")) - 1
        return Point.of(self.items, self.solution.choose(index), gap=0.0)

    def costs(self, fraction: float) -> CostArray:
        """Cost per sequence, shape (N,), of the best choice under a mean budget; see `at`."""
        return self.at(fraction).costs


def oracle_at(items: Items, fraction: float, *, hull: Envelope | None = None) -> Point:
    """The best choice under a single mean budget, in a fraction of the time of the whole frontier.

    Args:
        items: as returned by `quality_by_cost`.
        fraction: mean budget, over the full model's cost.
        hull: of the items, if known.

    Raises:
        InputError: if the budget is below the cost of the cheapest evaluated allocations.
    """
    hull = hull or envelope(items)
    total = len(items.cost_NC) * items.full_cost
    _check_budget(fraction, float(hull.base_cost.sum() / total))
    found = best_within(items, (fraction + SLACK) * total, hull)
    if found.gap and items.step is not None and work(items, items.step) <= EXACT_LIMIT:
        return oracle_frontier(items, exact=True).at(fraction)
    return Point.of(items, found.choice, gap=found.gap / len(items.cost_NC))


def _check_budget(fraction: float, least: float) -> None:
    if fraction < least - SLACK:
        raise InputError(
            f"the mean budget must be at least {least:.4f}, the cost of the cheapest "
            f"allocations evaluated; got {fraction:.4f}: raise it, or evaluate cheaper allocations"
        )


def oracle_frontier(items: Items, *, exact: bool | None = None) -> Frontier:
    """Solves the oracle at all mean budgets at once.

    Multiple-choice knapsack (Glavas et al. 2024, section on the oracle): a sequence is a group, its items are (cost,
    best quality at that cost), the capacity is the mean budget times the number of sequences.

    Args:
        items: as returned by `quality_by_cost`.
        exact: True for every optimum, which requires a common step of the costs; False for the filled relaxation; None
            for every optimum within `EXACT_LIMIT` cell updates, otherwise rounded costs.
    """
    N, step = len(items.cost_NC), _solved_in(items, exact)
    hull, gap = None, 0.0
    if step is not None and step == items.step:
        solution = solve_in_steps(items, step)
    else:
        hull = envelope(items)
        bound = solve_relaxed(hull)
        solution = solve_filled(hull, bound, items.step) if step is None else solve_in_steps(items, step)
        gap = _gap(solution, bound, items.step or 0.0)
    return Frontier(
        fraction=solution.cost / (N * items.full_cost),
        quality=solution.quality / N,
        exact=hull is None,
        shift=solution.shift / (N * items.full_cost),
        gap=gap / N,
        items=items,
        solution=solution,
        hull=hull,
    )


def _gap(solution: Solution, bound: Solution, step: float) -> float:
    """Largest excess of the linear relaxation over a solution: just before one of its next points, or at the end.

    Just before is one step of the costs before, where they have one.
    """
    before = np.append(np.maximum(solution.cost[1:] - step, solution.cost[:-1]), bound.cost[-1])
    return max(0.0, float((np.interp(before, bound.cost, bound.quality) - solution.quality).max()))


def _solved_in(items: Items, exact: bool | None) -> float | None:
    """Step of the costs in which the frontier is solved, see `oracle_frontier`; None for the filled relaxation."""
    return items.step if exact else None if exact is False else _step(items)


def _step(items: Items) -> float | None:
    """The costs' own step if affordable, else the finest affordable one; None if that is too coarse."""
    fewest, most = STEPS
    finest = items.step or items.full_cost / most
    updates = work(items, finest)
    if items.step is not None and updates <= EXACT_LIMIT:
        return items.step
    # Updates are proportional to steps.
    steps = int(min(most, items.full_cost / finest * ROUNDED_LIMIT / updates))
    return items.full_cost / steps if steps >= fewest else None


@dataclass(frozen=True, kw_only=True, repr=False)
class EqualQuality(Shown):
    """The point where the oracle reaches the full model.

    Attributes:
        fraction: least mean fraction of the full model's cost with mean quality >= `full_quality` - tolerance.
        quality: mean quality there.
        full_quality: mean quality of the full model.
        costs: cost per sequence.
        gap: upper bound of the excess of `fraction`; 0 unless the search exceeded its limits.
        solve: solves the whole curve.
    """

    fraction: float
    quality: float
    full_quality: float
    costs: CostArray
    gap: float
    solve: Callable[[], Frontier] = field(repr=False, compare=False)

    @cached_property
    def frontier(self) -> Frontier:
        """The whole curve; solved when first read, if the point did not need it."""
        return self.solve()


def equal_quality(items: Items, full_N: FloatArray, *, tolerance: float, exact: bool | None = None) -> EqualQuality:
    """Least total cost at which the oracle's mean quality >= the full model's - tolerance.

    Means are compared with a slack of 1e-9. Among the assignments of that total cost the one of highest mean quality is
    taken; among equals, where every optimum of the frontier is known, the one that gives the last sequence the least
    cost, then the last but one, and so on.

    Args:
        items: as returned by `quality_by_cost`; not to be changed before the curve is read.
        full_N: quality of the full model, in the same order.
        tolerance: allowed loss of mean quality, in units of the metric.
        exact: of the frontier, see `oracle_frontier`; the point itself is always exact.

    Raises:
        InputError: if the full model is not among the items.
    """
    full_quality = float(np.mean(full_N))
    target = full_quality - tolerance - SLACK
    step = _solved_in(items, exact)
    if step is not None and step == items.step:
        frontier = oracle_frontier(items, exact=True)
        index = int(np.searchsorted(frontier.quality, target))
        _check_reached(index < len(frontier.quality))
        point, gap = Point.of(items, frontier.solution.choose(index), gap=0.0), 0.0
        known: Frontier | None = frontier
    else:
        _check_reached(target <= items.quality_NC.max(axis=1).mean())
        point, gap = _searched(items, target)
        known = None
    return EqualQuality(
        fraction=point.fraction,
        quality=point.quality,
        full_quality=full_quality,
        costs=point.costs,
        gap=gap,
        solve=lambda: known or oracle_frontier(items, exact=exact),
    )


def _check_reached(reached: bool) -> None:
    if not reached:
        raise InputError("the full model must be among the items, it is not: keep number 0 of every sequence")


def _searched(items: Items, target: float) -> tuple[Point, float]:
    """The cheapest choice whose mean quality is the target, and the gap of its mean fraction."""
    hull, N = envelope(items), len(items.cost_NC)
    cheapest = cheapest_with(items, target * N, hull)
    point = Point.of(items, cheapest.choice, gap=0.0)
    best = best_within(items, items.costs(cheapest.choice).sum(), hull)
    # Rounding may hide from the second search what the first one found.
    if items.qualities(best.choice).mean() > point.quality:
        point = Point.of(items, best.choice, gap=0.0)
    return point, cheapest.gap / (N * items.full_cost)
