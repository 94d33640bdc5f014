"""The minimal budget of every sequence: the best found, and what is proven."""

from collections.abc import Mapping
from math import comb

import numpy as np
import pandas as pd

from analysis.grouping import BoolArray, FloatArray, Groups, IntArray, allocation_keys, group

__all__ = ["fractions", "mean_fraction", "minimal_budgets", "upper_budgets"]

ROUNDING = 1e-12
"""Slack of the criterion, so that a tolerance of 0.1 admits a loss of 0.1 whatever the rounding."""


def _qualifies(groups: Groups, tolerance: float) -> BoolArray:
    return groups.quality >= groups.full[groups.code] - tolerance - ROUNDING


def _least_cost(groups: Groups, qualifies_E: BoolArray) -> IntArray:
    upper_N = np.full(len(groups.ids), np.iinfo(np.int64).max)
    np.minimum.at(upper_N, groups.code[qualifies_E], groups.cost[qualifies_E])
    return upper_N


def upper_budgets(evaluations: pd.DataFrame, *, metric: str, tolerance: float) -> IntArray:
    """Least cost found that meets the criterion, shape (N,), in layer executions per generated token."""
    groups = group(evaluations, metric)
    return _least_cost(groups, _qualifies(groups, tolerance))


def minimal_budgets(
    evaluations: pd.DataFrame,
    *,
    layers: int,
    metric: str,
    tolerance: float,
    floor: float | None = None,
    exhausted: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Minimal budget of every sequence: least cost whose quality >= the full model's - tolerance.

    Args:
        evaluations: `sequence`, `number`, `family`, `allocation`, `cost` and the column `metric`.
        layers: L.
        metric: column with the quality.
        tolerance: allowed loss, in units of the metric.
        floor: lowest value of the metric, None if it has none.
        exhausted: by sequence the number of units below which every mask was tested by the search itself, those that
            qualify being among the evaluations; what was tested without decoding or dropped is known only to it.

    Returns:
        One row a sequence: `sequence`; `upper`, the least cost found; `allocation`, `family`, `number`,
        `quality` of the evaluation chosen (at that cost the best quality, then the lowest number);
        `full_quality`; `lower`, below which every skip mask was evaluated and failed; `certified`
        (lower == upper: no skip mask is cheaper); `proof`; `zero_quality`, whether the full
        model scores no more than the floor, so that everything qualifies.
    """
    groups = group(evaluations, metric)
    qualifies_E = _qualifies(groups, tolerance)
    upper_N = _least_cost(groups, qualifies_E)
    cheapest = np.flatnonzero(qualifies_E & (groups.cost == upper_N[groups.code]))
    order = np.lexsort((groups.number[cheapest], -groups.quality[cheapest], groups.code[cheapest]))
    rows = cheapest[order]
    chosen = evaluations.iloc[rows[np.unique(groups.code[rows], return_index=True)[1]]]
    lower_N = _lower(groups, evaluations["allocation"], upper_N, layers)
    if exhausted is not None:
        proven_N = np.array([exhausted.get(name, 0) for name in groups.ids], dtype=np.int64)
        lower_N = np.maximum(lower_N, np.minimum(proven_N, upper_N))
    return pd.DataFrame(
        {
            "sequence": groups.ids,
            "upper": upper_N,
            "allocation": chosen["allocation"].to_numpy(),
            "family": chosen["family"].to_numpy(),
            "number": chosen["number"].to_numpy(),
            "quality": chosen[metric].to_numpy(np.float64),
            "full_quality": groups.full,
            "lower": lower_N,
            "certified": lower_N == upper_N,
            "proof": [_proof(int(lower), int(upper)) for lower, upper in zip(lower_N, upper_N, strict=True)],
            "zero_quality": groups.full <= (-np.inf if floor is None else floor),
        }
    )


def _lower(groups: Groups, allocations: pd.Series, upper_N: IntArray, layers: int) -> IntArray:
    """Least cost with a skip mask that was not tried; everything under `upper_N` has failed already."""
    K = layers + 1
    all_K = np.array([min(comb(layers, k), np.iinfo(np.int64).max) for k in range(K)])
    below = np.flatnonzero((groups.cost < upper_N[groups.code]) & (groups.cost < K))
    cell = groups.code * K + groups.cost
    # Only budgets with enough rows can be exhausted: the others need no look at their allocations.
    rows_NK = np.bincount(cell[below], minlength=len(groups.ids) * K)
    below = below[(rows_NK >= np.tile(all_K, len(groups.ids)))[cell[below]]]
    key, is_mask = allocation_keys(allocations.iloc[below])
    distinct = pd.DataFrame({"cell": cell[below], "key": key})[is_mask].drop_duplicates()
    masks_NK = np.bincount(distinct["cell"], minlength=len(groups.ids) * K).reshape(-1, K)
    open_NK = np.column_stack([masks_NK < all_K, np.ones(len(groups.ids), dtype=bool)])
    return np.minimum(open_NK.argmax(axis=1), upper_N)


def _proof(lower: int, upper: int) -> str:
    if lower == 0:
        return "no budget is smaller than 0 layers" if upper == 0 else "none"
    return f"all masks of at most {lower - 1} layers tested"


def fractions(minimal: pd.DataFrame, layers: int, *, nonzero: bool = False) -> FloatArray:
    """Minimal budgets as fractions of the layers.

    Args:
        minimal: table of `minimal_budgets`.
        layers: L.
        nonzero: leave out the sequences where the full model scores no more than the floor.
    """
    rows = minimal[~minimal["zero_quality"]] if nonzero else minimal
    return rows["upper"].to_numpy(np.float64) / layers


def mean_fraction(costs: IntArray, layers: int) -> float:
    """Mean of costs as a fraction of the layers, from their integer sum: rounded once, so that equal is equal."""
    return int(costs.sum()) / (len(costs) * layers)
