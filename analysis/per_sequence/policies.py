"""Baselines for the oracle: fixed policies, with the same allocation (or the same luck) for every sequence."""

import pandas as pd

from analysis.experiment import as_experiment
from analysis.grouping import group
from oracle.types import RunPath

__all__ = ["FULL", "policy_curves", "policy_curves_of", "policy_qualities"]

FULL = "full"
"""Family of the full model, which every policy equals at cost L."""


def policy_qualities(evaluations: pd.DataFrame, *, full_cost: float, metric: str) -> pd.DataFrame:
    """Quality of each family at each number of units, per sequence.

    Several allocations of a family with one number of units (random masks) are averaged within the sequence. A number
    for which some sequence lacks the family is left out, so that every mean is over the same sequences.

    Args:
        evaluations: `sequence`, `number`, `family`, `allocation`, `cost` and the column `metric`.
        full_cost: of the full model: L where the cost is the number of layers.
        metric: column with the quality.

    Returns:
        `family`, `units`, `sequence`, `cost`, `quality`, sorted by the first three; without the full model.
    """
    groups = group(evaluations, metric)
    rows = evaluations[(evaluations["family"] != FULL) & (evaluations["cost"] < full_cost)]
    rows = rows.assign(units=rows["allocation"].map(len), quality=rows[metric])
    each = rows.groupby(["family", "units", "sequence"], as_index=False, sort=True)[["cost", "quality"]].mean()
    count = each.groupby(["family", "units"])["sequence"].transform("size")
    return each[count == len(groups.ids)].reset_index(drop=True)


def policy_curves(run: RunPath) -> pd.DataFrame:
    """Mean quality of each family of allocations at each budget, over all sequences; means as in `policy_qualities`.

    Returns:
        `family`, `cost` (the mean), `fraction`, `quality` sorted by family and cost; the full model closes each curve.
    """
    experiment = as_experiment(run)
    return policy_curves_of(experiment.evaluations, full_cost=experiment.full_cost, metric=experiment.metric)


def policy_curves_of(evaluations: pd.DataFrame, *, full_cost: float, metric: str) -> pd.DataFrame:
    """The table of `policy_curves`; arguments as for `policy_qualities`."""
    each = policy_qualities(evaluations, full_cost=full_cost, metric=metric)
    curves = each.groupby(["family", "units"], as_index=False)[["cost", "quality"]].mean().drop(columns="units")
    full = group(evaluations, metric).full.mean()
    ends = pd.DataFrame({"family": curves["family"].unique(), "cost": full_cost, "quality": full})
    closed = pd.concat([curves, ends]).sort_values(["family", "cost"], ignore_index=True)
    closed.insert(2, "fraction", closed["cost"] / full_cost)
    return closed
