"""The luck curve: savings against the number of allocations tried.

With more outputs, it is more likely that a cheap one matches the full model by chance. So the fractions found fall with
the number of tries for any references: a curve that still falls at its end has not found the minimum, and one that
falls like its shuffled twin shows selection, not headroom.

If earlier results steered the search, the shuffled curve uses the same tries but is not the same search: it shows the
effect of selecting the best of these tries, not the result of a search steered by the shuffled references. In shapes, X
is the points of the curve, Y its columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.experiment import Experiment, as_experiment
from analysis.grouping import FloatArray, Groups, IntArray, group
from analysis.knapsack.dynamic_program import work
from analysis.knapsack.frontier import EXACT_LIMIT, equal_quality
from analysis.knapsack.items import Items, levels, quality_by_cost
from analysis.luck.null_oracle import derangements
from analysis.per_sequence.savings import mean_fraction
from analysis.stats import equal_quality_interval, mean_interval
from oracle.metrics import qualifies
from oracle.types import RunPath

__all__ = ["POINTS", "grid", "luck_curve", "progress_curve"]

POINTS = 3
"""Points of the curve per doubling of the tries."""

_FOUND = ("per_sequence", "per_sequence_low", "per_sequence_high")
_ORACLE = ("equal_quality", "equal_quality_low", "equal_quality_high")


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Settings shared by all readings of a run.

    Attributes:
        count_X: number of allocations tried per sequence, rising strictly, from 1 to all.
        tries_E: number of allocations of its sequence tried up to and including this one.
        exact_X: how the oracle is solved at each point; see `analysis.knapsack.frontier.oracle_frontier`.
    """

    count_X: IntArray
    tries_E: IntArray
    exact_X: list[bool | None]


def luck_curve(experiment: RunPath, *, bootstrap: int = 1000, permutations: int = 10) -> pd.DataFrame:
    """Results of the run as if every sequence's search had ended after its first n allocations.

    The full model is the first of them; a sequence with fewer than n keeps all. The last row equals
    `analysis.summarise`. Nothing is generated; against shuffled references (see `analysis.null_oracle`) the stored
    outputs are scored again. If earlier results steered the search, the null uses the same tries but is not the same
    search: it shows the effect of selecting the best of these tries. Outputs that the search dropped unfinished count
    as tried; their quality is unknown, so the null uses only the others.

    Args:
        experiment: the run.
        bootstrap: resamples behind the intervals, the same ones at every n; 0 for none.
        permutations: derangements behind the null, the same ones as the null oracle's; 0 for none.

    Returns:
        One row per n, about `POINTS` per doubling: `allocations` (n); fractions of the full model's cost, none of which
        rises with n: `per_sequence` (mean minimal budget), `equal_quality` (of the data-set oracle), both with the ends
        `_low` and `_high` of their 95 % bootstrap interval over sequences; `null_per_sequence` and
        `null_equal_quality`, means over the permutations. NaN without an interval or null.
    """
    experiment = as_experiment(experiment)
    N = len(experiment.sequences)
    nulls = experiment.affordable_permutations(permutations) if N > 1 and permutations > 0 else 0
    plan = _plan(experiment, solutions_per_point=1 + nulls)
    quality_E = experiment.evaluations[experiment.metric].to_numpy(np.float64)
    curve = pd.DataFrame(_read(experiment, plan, quality_E, bootstrap), columns=[*_FOUND, *_ORACLE])
    curve.insert(0, "allocations", plan.count_X)
    curve[["null_per_sequence", "null_equal_quality"]] = np.nan
    if nulls:
        quality_PE = experiment.shuffled_quality(derangements(N, nulls, experiment.seed))
        read_XYP = np.stack([_read(experiment, plan, quality_E, 0) for quality_E in quality_PE], axis=-1)
        curve[["null_per_sequence", "null_equal_quality"]] = read_XYP[:, [0, len(_FOUND)]].mean(axis=-1)
    return curve


def grid(most: int) -> IntArray:
    """Numbers of tries from 1 to `most`, evenly spread on a logarithmic axis, `POINTS` per doubling."""
    halvings = np.arange(POINTS * np.log2(most) + 1) / POINTS
    return np.unique(np.append(np.rint(most / 2**halvings).astype(np.int64), 1))


def _plan(experiment: Experiment, solutions_per_point: int) -> _Plan:
    evaluations = experiment.evaluations
    # Not a count of rows: dropped outputs have a number and no row.
    tries_E = evaluations["number"].to_numpy(np.int64) + 1
    most = int(tries_E.max())
    count_X = grid(most)
    items, _ = quality_by_cost(evaluations, experiment.full_cost, experiment.metric, step=experiment.step)
    solutions = len(count_X) * solutions_per_point
    affordable = items.step is not None and work(items, items.step) * solutions <= EXACT_LIMIT
    # The last point follows the summary's rule, so that the two agree.
    return _Plan(count_X=count_X, tries_E=tries_E, exact_X=[affordable] * (len(count_X) - 1) + [None])


def _read(experiment: Experiment, plan: _Plan, quality_E: FloatArray, bootstrap: int) -> FloatArray:
    """Columns `_FOUND` and `_ORACLE` at every point, for one quality of the evaluations."""
    groups = group(experiment.evaluations[["sequence", "number", "cost"]].assign(quality=quality_E), "quality")
    full_cost, tolerance, none = experiment.full_cost, experiment.tolerance, (np.nan, np.nan)
    resampled = {"resamples": bootstrap, "seed": experiment.seed}
    rows = []
    for items, exact in zip(_known(experiment, plan, groups), plan.exact_X, strict=True):
        # The full model qualifies at its own cost, so there is always a first one.
        upper_N = items.costs(qualifies(items.quality_NC, groups.full[:, None], tolerance).argmax(axis=1))
        oracle = equal_quality(items, groups.full, tolerance=tolerance, exact=exact).fraction
        found_interval = mean_interval(upper_N / full_cost, **resampled)
        oracle_interval = equal_quality_interval(items, groups.full, tolerance=tolerance, **resampled)
        rows.append((mean_fraction(upper_N, full_cost), *(found_interval or none), oracle, *(oracle_interval or none)))
    read_XY = np.array(rows)
    # With an open gap of the oracle, a fraction may be below a later one: raised to that it stays within the gap.
    oracle_X = read_XY[:, len(_FOUND)]
    oracle_X[:] = np.maximum.accumulate(oracle_X[::-1])[::-1]
    return read_XY


def _known(experiment: Experiment, plan: _Plan, groups: Groups) -> Iterator[Items]:
    """The best quality at each cost after each count: one array, changed in place by the next step."""
    found = levels(groups, experiment.full_cost)
    quality_NC = np.full(found.cost_NC.shape, -np.inf)
    items = Items(cost_NC=found.cost_NC, quality_NC=quality_NC, full_cost=experiment.full_cost, step=experiment.step)
    tries, quality = plan.tries_E[found.row], groups.quality[found.row]
    order = np.argsort(tries, kind="stable")
    ends = np.searchsorted(tries[order], plan.count_X, side="right")
    for start, end in pairwise([0, *ends.tolist()]):
        rows = order[start:end]
        np.maximum.at(quality_NC.reshape(-1), found.cell[rows], quality[rows])
        yield items


def progress_curve(experiment: RunPath) -> pd.DataFrame:
    """Mean minimal fraction known after each evaluation: the progress of a search.

    Returns:
        One row per n from 1 (the full model alone) to the most evaluations of any sequence: `evaluations`, n per
        sequence, where one with fewer keeps all, and dropped outputs count; `fraction`, mean over sequences of the
        least cost found that meets the criterion, over the full model's; `fraction_nonzero`, the same where the full
        model scores above the metric's floor (NaN if nowhere).
    """
    experiment = as_experiment(experiment)
    groups = group(experiment.evaluations, experiment.metric)
    qualifies_E = qualifies(groups.quality, groups.full[groups.code], experiment.tolerance)
    found = pd.DataFrame({"code": groups.code, "number": groups.number, "cost": groups.cost})[qualifies_E]
    found = found.sort_values(["code", "number"], kind="stable")
    # The full model comes first; every later one can only save.
    best = found.groupby("code")["cost"].cummin()
    saved = -best.groupby(found["code"]).diff().fillna(0).to_numpy()
    number, floor = found["number"].to_numpy(), -np.inf if experiment.floor is None else experiment.floor
    most = int(groups.number.max()) + 1
    curve = pd.DataFrame({"evaluations": np.arange(1, most + 1)})
    for name, kept_N in (("fraction", np.ones(len(groups.ids), dtype=bool)), ("fraction_nonzero", groups.full > floor)):
        kept = kept_N[found["code"]]
        spared_X = np.bincount(number[kept], weights=saved[kept], minlength=most).cumsum()
        budget = kept_N.sum() * experiment.full_cost
        curve[name] = (budget - spared_X) / budget if budget else np.nan
    return curve
