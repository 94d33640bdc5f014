"""Fixed policies, the same allocation (or the same luck) for every sequence, to compare the oracle with."""

import pandas as pd

from analysis.grouping import group

__all__ = ["FULL", "policy_curves"]

FULL = "full"
"""Family of the full model: at cost L every policy is the full model."""


def policy_curves(evaluations: pd.DataFrame, *, layers: int, metric: str) -> pd.DataFrame:
    """Mean quality of each family at each budget, over all sequences.

    A family's several allocations of one budget (random masks) are averaged within the sequence first. A
    budget where some sequence lacks the family is left out, so that every mean is over the same sequences.

    Args:
        evaluations: `sequence`, `number`, `family`, `cost` and the column `metric`.
        layers: L.
        metric: column with the quality.

    Returns:
        `family`, `cost`, `fraction`, `quality` sorted by family and cost; the full model closes each curve.
    """
    groups = group(evaluations, metric)
    rows = evaluations.loc[evaluations["family"] != FULL, ["family", "cost", "sequence", metric]]
    rows = rows[rows["cost"] < layers]
    each = rows.groupby(["family", "cost", "sequence"], as_index=False, sort=True)[metric].mean()
    budgets = each.groupby(["family", "cost"], as_index=False).agg(quality=(metric, "mean"), count=(metric, "size"))
    curves = budgets.loc[budgets["count"] == len(groups.ids), ["family", "cost", "quality"]]
    ends = pd.DataFrame({"family": curves["family"].unique(), "cost": layers, "quality": groups.full.mean()})
    closed = pd.concat([curves, ends]).sort_values(["family", "cost"], ignore_index=True)
    closed.insert(2, "fraction", closed["cost"] / layers)
    return closed
