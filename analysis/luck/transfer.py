"""Transfer of a choice to another measure: other metrics, or held-out references.

An allocation chosen by one metric may have gained by peculiarities of that metric. Reported in all the others, it shows
how much of its quality they confirm. All metrics here compare the same words with the same references, so agreement
among them is no proof; `reference_transfer` holds references out. In shapes, X is the policies.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.experiment import METRICS, Experiment, as_experiment
from analysis.grouping import FloatArray
from analysis.knapsack.assignment import assignment
from analysis.knapsack.frontier import equal_quality
from analysis.knapsack.items import quality_by_cost
from analysis.luck.held_out import SPLITS, held_out
from analysis.per_sequence.savings import budgets
from analysis.stats import mean_interval
from oracle.metrics import qualifies
from oracle.types import RunPath

__all__ = ["POLICIES", "metric_transfer", "reference_transfer"]

POLICIES = ("minimal", "equal_quality")
"""The minimal budget of each sequence, and the data-set oracle at the full model's mean quality."""


def metric_transfer(run: RunPath, *, bootstrap: int = 1000) -> pd.DataFrame:
    """Allocations chosen by each metric, reported in all of them, against the full model.

    Args:
        run: an experiment, a run or its path. Its tolerance applies where its own metric chooses, 0 elsewhere.
        bootstrap: resamples of the sequences behind the intervals; 0 for none.

    Returns:
        One row per choosing metric, policy and reporting metric: `chosen_by`, `policy` (see `POLICIES`), `reported_in`,
        `sequences`, `fraction` (mean cost of the choice over the full model's), `quality` and `full` (means of the
        choice and of the full model in `reported_in`), their `difference`, and `low` and `high`, the ends of its 95 %
        bootstrap interval, paired over sequences (NaN without one). Where a metric reports on its own choice, the
        difference is at least -tolerance by construction: compare it with the others in its row.
    """
    experiment = as_experiment(run)
    evaluations = experiment.evaluations
    metrics = [name for name in METRICS if name in evaluations and evaluations[name].notna().all()]
    full = evaluations[evaluations["number"] == 0].set_index("sequence")[metrics]
    rows = []
    for metric in metrics:
        tolerance = experiment.tolerance if metric == experiment.metric else 0.0
        read = replace(experiment, metric=metric, tolerance=tolerance, exhausted={})
        for policy, chosen in zip(POLICIES, _chosen(read), strict=True):
            table = chosen[["sequence", "number"]].merge(evaluations, on=["sequence", "number"], validate="one_to_one")
            table = table.set_index("sequence").loc[full.index]
            fraction = table["cost"].mean() / experiment.full_cost
            for other in metrics:
                compared = _compared(table[other].to_numpy(float), full[other].to_numpy(float), experiment, bootstrap)
                rows.append(
                    {"chosen_by": metric, "policy": policy, "reported_in": other, "fraction": fraction, **compared}
                )
    return pd.DataFrame(rows)[
        ["chosen_by", "policy", "reported_in", "sequences", "fraction", "quality", "full", "difference", "low", "high"]
    ]


def _chosen(experiment: Experiment) -> Iterator[pd.DataFrame]:
    """The choice of each policy: `sequence` and `number` at least."""
    minimal = budgets(experiment)
    yield minimal
    items, number_NC = quality_by_cost(
        experiment.evaluations, experiment.full_cost, experiment.metric, step=experiment.step
    )
    oracle = equal_quality(items, minimal["full_quality"].to_numpy(), tolerance=experiment.tolerance)
    yield assignment(experiment.evaluations, number_NC, oracle.costs, experiment.metric)


def reference_transfer(run: RunPath, *, bootstrap: int = 1000, splits: int = SPLITS) -> pd.DataFrame | None:
    """Allocations chosen by one half of each sequence's references, reported by that half and by the other.

    Args:
        run: an experiment, a run or its path.
        bootstrap: resamples of the sequences behind the intervals; 0 for none.
        splits: halvings of each sequence's references, an even number; a sequence's values are means over them.

    Returns:
        One row per policy and half: `policy` (see `POLICIES`), `reported_by` (`chooser` or `held_out`), and
        `sequences`, `fraction`, `quality`, `full`, `difference`, `low`, `high` as in `metric_transfer`. The excess of
        `chooser` over `held_out` is luck, or the form of the references: see `analysis.luck.held_out_saving`. None if
        nothing can be held out.
    """
    experiment = as_experiment(run)
    held = held_out(experiment, splits=splits)
    if held is None:
        return None
    # Cost, then quality and the full model's by the choosing half and by the other.
    sums_X5N = np.zeros((len(POLICIES), 5, held.sequences))
    for split in range(splits):
        choices = held.choices(split, experiment.full_cost, experiment.step)
        items, full_N, row_N = choices.items, choices.full_N, np.arange(held.sequences)
        minimal_N = qualifies(items.quality_NC, full_N[:, None], experiment.tolerance).argmax(axis=1)
        costs_N = equal_quality(items, full_N, tolerance=experiment.tolerance).costs
        oracle_N = (items.cost_NC == costs_N[:, None]).argmax(axis=1)
        for policy, column_N in enumerate((minimal_N, oracle_N)):
            found = (items.costs(column_N), items.qualities(column_N), full_N)
            sums_X5N[policy] += (*found, choices.reported_NC[row_N, column_N], choices.reported_full_N)
    rows: list[dict[str, object]] = []
    for name, (cost_N, *values) in zip(POLICIES, sums_X5N / splits, strict=True):
        fraction = cost_N.mean() / experiment.full_cost
        for half, (quality_N, full_N) in zip(("chooser", "held_out"), (values[:2], values[2:]), strict=True):
            compared = _compared(quality_N, full_N, experiment, bootstrap)
            rows.append({"policy": name, "reported_by": half, "fraction": fraction, **compared})
    return pd.DataFrame(rows)[
        ["policy", "reported_by", "sequences", "fraction", "quality", "full", "difference", "low", "high"]
    ]


def _compared(
    quality_N: FloatArray, full_N: FloatArray, experiment: Experiment, bootstrap: int
) -> dict[str, int | float]:
    """Means, and the paired difference with its interval."""
    difference_N = quality_N - full_N
    low, high = mean_interval(difference_N, resamples=bootstrap, seed=experiment.seed) or (np.nan, np.nan)
    return {
        "sequences": len(full_N),
        "quality": float(quality_N.mean()),
        "full": float(full_N.mean()),
        "difference": float(difference_N.mean()),
        "low": low,
        "high": high,
    }
