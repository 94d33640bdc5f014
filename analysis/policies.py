"""Fixed policies, the same allocation (or the same luck) for every sequence, to compare the oracle with."""

import pandas as pd

from analysis.grouping import group

__all__ = ["FULL", "policy_curves"]

FULL = "full"
"""Family of the full model: at cost L every policy is the full model."""


def policy_curves(evaluations: pd.DataFrame, *, full_cost: float, metric: str) -> pd.DataFrame:
    """Mean quality of each family at each budget, over all sequences.

    A family's several allocations of one number of units (random masks) are averaged within the sequence first. A
    number where some sequence lacks the family is left out, so that every mean is over the same sequences.

    Args:
        evaluations: `sequence`, `number`, `family`, `allocation`, `cost` and the column `metric`.
        full_cost: of the full model: L where the cost is the number of layers.
        metric: column with the quality.

    Returns:
        `family`, `cost` (the mean), `fraction`, `quality` sorted by family and cost; the full model closes each curve.
    """
    groups = group(evaluations, metric)
    rows = evaluations[(evaluations["family"] != FULL) & (evaluations["cost"] < full_cost)]
    rows = rows.assign(units=rows["allocation"].map(len))
    each = rows.groupby(["family", "units", "sequence"], as_index=False, sort=True)[["cost", metric]].mean()
    budgets = each.groupby(["family", "units"], as_index=False).agg(
        cost=("cost", "mean"), quality=(metric, "mean"), count=(metric, "size")
    )
    curves = budgets.loc[budgets["count"] == len(groups.ids), ["family", "cost", "quality"]]
    ends = pd.DataFrame({"family": curves["family"].unique(), "cost": full_cost, "quality": groups.full.mean()})
    closed = pd.concat([curves, ends]).sort_values(["family", "cost"], ignore_index=True)
    closed.insert(2, "fraction", closed["cost"] / full_cost)
    return closed
