"""Bootstrap intervals over sequences, seeded."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Items
from analysis.knapsack.relaxation import Envelope, envelope

__all__ = [
    "CONFIDENCE",
    "affordable_resamples",
    "ends",
    "equal_quality_interval",
    "intervals",
    "mean_interval",
    "percentile_interval",
    "resampled_counts",
]

CONFIDENCE = 0.95
"""Level of every interval: percentile method, sequences resampled with replacement (Efron 1979).

Not BCa: its acceleration comes from a jackknife, which fails for medians and quartiles and is undefined for equal
values, and one method serves every number. Either is too narrow for a handful of sequences."""

DRAWS = 8_000_000
"""Maximum number of sequences drawn for one interval: above 8,000 sequences there are fewer than 1,000 resamples, but
at least `FEWEST`. The ends then vary by a few per cent of the interval's width."""

FEWEST = 100

CHUNK = 4_000_000
"""Maximum number of values held at once while resampling."""


def affordable_resamples(wanted: int, sequences: int) -> int:
    """Number of resamples that keeps to `DRAWS`."""
    return min(wanted, max(FEWEST, DRAWS // max(1, sequences)))


def mean_interval(values_N: FloatArray, *, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of a mean over sequences; None for fewer than two values or no resamples."""
    found = intervals(values_N, np.mean, resamples=resamples, seed=seed)
    return None if found is None else (float(found[0]), float(found[1]))


def ends(values: Iterable[FloatArray], *, seed: int, resamples: int = 1000) -> dict[str, list[float]]:
    """`low` and `high` ends of `mean_interval` for each of several samples; NaN without an interval."""
    found = [mean_interval(each, resamples=resamples, seed=seed) or (np.nan, np.nan) for each in values]
    return {"low": [low for low, _ in found], "high": [high for _, high in found]}


def intervals(
    values_N: FloatArray, statistic: Callable[..., FloatArray], *, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray] | None:
    """95 % percentile interval of one or several statistics over sequences, by `scipy.stats.bootstrap`.

    Args:
        values_N: one value per sequence.
        statistic: of samples along `axis`; several statistics along the first axis of its result.
        resamples: B.
        seed: of the resampling; equal seeds resample equally for every statistic.

    Returns:
        Low and high ends, in the shape of one statistic; None for fewer than two values or no resamples.
    """
    if len(values_N) < 2 or resamples < 1:
        return None
    resamples = affordable_resamples(resamples, len(values_N))
    from scipy.stats import bootstrap  # slow to import, and not every query needs it

    result = bootstrap(
        (values_N,),
        statistic,
        n_resamples=resamples,
        batch=max(1, CHUNK // len(values_N)),
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return result.confidence_interval.low, result.confidence_interval.high


@lru_cache(maxsize=1)  # the points of a curve resample alike
def resampled_counts(N: int, resamples: int, seed: int) -> IntArray:
    """Number of times each of N sequences is drawn, one row per bootstrap resample (B N), read-only."""
    times_BN = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=resamples)
    times_BN.flags.writeable = False
    return times_BN


def percentile_interval(values_B: FloatArray) -> tuple[float, float] | None:
    """95 % percentile interval of the values of a statistic over resamples, NaN left out; None without values."""
    defined = values_B[~np.isnan(values_B)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def equal_quality_interval(
    items: Items, full_N: FloatArray, *, tolerance: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """95 % percentile interval of the equal-quality fraction; None for fewer than two sequences or no resamples.

    Every resample is solved by the linear relaxation of the knapsack, where one sequence may mix two allocations: the
    value is at most one allocation of one sequence below the exact one.

    Args:
        items: as returned by `quality_by_cost`.
        full_N: quality of the full model.
        tolerance: allowed loss of mean quality.
        resamples: B.
        seed: of the resampling.
    """
    N = len(full_N)
    if N < 2 or resamples < 1:
        return None
    resamples = affordable_resamples(resamples, N)
    hull = envelope(items)
    times_BN = resampled_counts(N, resamples, seed)
    step = max(1, CHUNK // max(1, len(hull.cost)))
    cost_B = np.concatenate(
        [_relaxed_cost(hull, full_N - tolerance, times_BN[b : b + step]) for b in range(0, resamples, step)]
    )
    return percentile_interval(cost_B / (N * items.full_cost))


def _relaxed_cost(hull: Envelope, target_N: FloatArray, times_BN: IntArray) -> FloatArray:
    """Least total cost, fractional, that reaches the target, per row of multiplicities."""
    need_B = times_BN @ (target_N - hull.base_quality)
    cost_B = (times_BN @ hull.base_cost).astype(np.float64)
    if not len(hull.cost):
        return cost_B
    times_BJ = times_BN[:, hull.sequence]
    gained_BJ = np.cumsum(times_BJ * hull.gain, axis=1)
    spent_BJ = np.cumsum(times_BJ * hull.cost, axis=1)
    # The first segment that reaches the target; rounding may leave the last sum just below it.
    last_B = np.minimum((gained_BJ < need_B[:, None]).sum(axis=1), len(hull.cost) - 1)
    row = np.arange(len(times_BN))
    lacking_B = np.clip(gained_BJ[row, last_B] - need_B, 0.0, None)
    efficiency_B = hull.gain[last_B] / hull.cost[last_B]
    spent_B = spent_BJ[row, last_B] - lacking_B / efficiency_B
    return cost_B + np.where(need_B > 0, spent_B, 0.0)
