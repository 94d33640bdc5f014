"""The data-set oracle of a run as tables: quality under mean budgets, and the allocation of each sequence."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd

from analysis.experiment import InputError, as_experiment
from analysis.grouping import CostArray, IntArray, group
from analysis.knapsack.frontier import SLACK, equal_quality, oracle_at
from analysis.knapsack.items import quality_by_cost
from analysis.knapsack.relaxation import envelope
from oracle.types import RunPath
from oracle.utils.validation import check_list

__all__ = ["assignment", "oracle_allocations", "oracle_curve"]


def oracle_curve(experiment: RunPath, budgets: Sequence[float] | None = None) -> pd.DataFrame:
    """Best mean quality of the oracle under mean budgets (Glavas et al. 2024), each solved separately.

    Args:
        experiment: the run.
        budgets: mean fractions of the full model's cost, in 0..1; None for one per number of units, from the cost of
            the cheapest allocations on.

    Returns:
        One row per budget: `budget`; `fraction`, spent part of it; `quality`, the mean; `gap`, upper bound of the
        shortfall from the best mean quality, by the linear relaxation: 0 where the optimum is known.

    Raises:
        InputError: if a budget is below the cost of the cheapest evaluated allocations.
    """
    check_list(budgets, "budgets")
    experiment = as_experiment(experiment)
    items, _ = quality_by_cost(experiment.evaluations, experiment.full_cost, experiment.metric, step=experiment.step)
    hull = envelope(items)
    if budgets is None:
        every = np.arange(experiment.layers + 1) / experiment.layers
        budgets = every[every >= hull.base_cost.mean() / experiment.full_cost - SLACK].tolist()
    points = [oracle_at(items, budget, hull=hull) for budget in budgets]
    return pd.DataFrame(
        [(budget, point.fraction, point.quality, point.gap) for budget, point in zip(budgets, points, strict=True)],
        columns=["budget", "fraction", "quality", "gap"],
    )


def oracle_allocations(experiment: RunPath, budget: float | None = None) -> pd.DataFrame:
    """The oracle's allocation per sequence.

    Args:
        experiment: the run.
        budget: mean fraction of the full model's cost; None for the least at which mean quality is the full model's.

    Returns:
        One row per sequence: `sequence`, `task`; `number`, `allocation`, `cost`, `fraction` (of the full model's cost)
        and `quality` of the evaluation chosen; `full_quality`.

    Raises:
        InputError: if the budget is no fraction, or below the cost of the cheapest evaluated allocations.
    """
    experiment = as_experiment(experiment)
    if budget is not None and not (isinstance(budget, Real) and 0 <= budget <= 1):
        raise InputError(f"budget needs a fraction of the full model's cost from 0 to 1, not {budget!r:.80}")
    evaluations, full_cost, metric = experiment.evaluations, experiment.full_cost, experiment.metric
    items, number_NC = quality_by_cost(evaluations, full_cost, metric, step=experiment.step)
    groups = group(evaluations, metric)
    if budget is None:
        costs = equal_quality(items, groups.full, tolerance=experiment.tolerance).costs
    else:
        costs = oracle_at(items, budget).costs
    table = assignment(evaluations, number_NC, costs, metric)
    table.insert(4, "fraction", table["cost"] / full_cost)
    full = pd.DataFrame({"sequence": groups.ids, "full_quality": groups.full})
    tasks = experiment.sequences[["sequence", "task"]]
    return tasks.merge(table, on="sequence").merge(full, on="sequence", validate="one_to_one")


def assignment(evaluations: pd.DataFrame, number_NC: IntArray, costs: CostArray, metric: str) -> pd.DataFrame:
    """The evaluations behind a choice of costs: `sequence`, `number`, `allocation`, `cost`, `quality`.

    Args:
        evaluations: the input of `quality_by_cost`.
        number_NC: its result.
        costs: chosen cost per sequence, one at which the sequence was evaluated.
        metric: column with the quality.
    """
    ids = pd.factorize(evaluations["sequence"])[1]
    n, k = np.nonzero(number_NC >= 0)
    frontier = pd.DataFrame({"sequence": ids[n], "number": number_NC[n, k], "chosen": costs[n]})
    table = frontier.merge(evaluations, on=["sequence", "number"], how="left", validate="one_to_one")
    table = table[table["cost"] == table["chosen"]].reset_index(drop=True)
    return table.rename(columns={metric: "quality"})[["sequence", "number", "allocation", "cost", "quality"]]
