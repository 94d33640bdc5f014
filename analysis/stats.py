"""How far the numbers would move with other sequences: bootstrap intervals, seeded."""

from collections.abc import Callable

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Items
from analysis.knapsack.relaxation import Envelope, envelope

__all__ = ["CONFIDENCE", "affordable_resamples", "equal_quality_interval", "intervals", "mean_interval"]

CONFIDENCE = 0.95
"""Level of every interval: percentile method, sequences resampled with replacement (Efron 1979).

Not BCa: its acceleration comes from a jackknife, which fails for medians and quartiles and is undefined for equal
values, and one method serves every number. Either is too narrow for a handful of sequences.
"""

DRAWS = 8_000_000
"""Maximum number of sequences drawn for one interval: above 8,000 sequences there are fewer than 1,000 resamples, but
at least `FEWEST`. The ends then vary by a few per cent of the interval's width."""

FEWEST = 100

CHUNK = 4_000_000
"""Values held at once while resampling."""


def affordable_resamples(wanted: int, sequences: int) -> int:
    """Number of resamples that keeps to `DRAWS`."""
    return min(wanted, max(FEWEST, DRAWS // max(1, sequences)))


def mean_interval(values_N: FloatArray, *, resamples: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of a mean over sequences.

    Returns:
        Low and high end; None for fewer than two values or no resamples.
    """
    found = intervals(values_N, np.mean, resamples=resamples, seed=seed)
    return None if found is None else (float(found[0]), float(found[1]))


def intervals(
    values_N: FloatArray, statistic: Callable[..., FloatArray], *, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray] | None:
    """95 % percentile interval of one or several statistics over sequences, by `scipy.stats.bootstrap`.

    Args:
        values_N: a value of each sequence.
        statistic: of samples along `axis`; several statistics along the first axis of what it returns.
        resamples: B.
        seed: of the resampling: with the same one, statistics see the same resamples.

    Returns:
        Low and high ends, in the shape of one statistic; None for fewer than two values or no resamples.
    """
    if len(values_N) < 2 or resamples < 1:
        return None
    resamples = affordable_resamples(resamples, len(values_N))
    from scipy.stats import bootstrap  # here, for queries without intervals should not wait for it

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


def equal_quality_interval(
    items: Items, full_N: FloatArray, *, tolerance: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """95 % percentile interval of the equal-quality fraction, sequences resampled.

    Every resample is solved by the linear relaxation of the knapsack, where one sequence may mix two
    allocations: the value is at most one allocation of one sequence below the exact one.

    Args:
        items: as returned by `quality_by_cost`.
        full_N: quality of the full model.
        tolerance: allowed loss of mean quality.
        resamples: B.
        seed: of the resampling.

    Returns:
        Low and high end; None for fewer than two sequences or no resamples.
    """
    N = len(full_N)
    if N < 2 or resamples < 1:
        return None
    resamples = affordable_resamples(resamples, N)
    hull = envelope(items)
    rng = np.random.default_rng(seed)
    times_BN = rng.multinomial(N, np.full(N, 1 / N), size=resamples)
    step = max(1, CHUNK // max(1, len(hull.cost)))
    cost_B = np.concatenate(
        [_relaxed_cost(hull, full_N - tolerance, times_BN[b : b + step]) for b in range(0, resamples, step)]
    )
    low, high = np.quantile(cost_B / (N * items.full_cost), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _relaxed_cost(hull: Envelope, target_N: FloatArray, times_BN: IntArray) -> FloatArray:
    """Least total cost, fractional, that reaches the target, for each row of multiplicities."""
    need_B = times_BN @ (target_N - hull.base_quality)
    cost_B = (times_BN @ hull.base_cost).astype(np.float64)
    if not len(hull.cost):
        return cost_B
    times_BS = times_BN[:, hull.sequence]
    gained_BS = np.cumsum(times_BS * hull.gain, axis=1)
    spent_BS = np.cumsum(times_BS * hull.cost, axis=1)
    # The first segment that reaches the target; rounding may leave the very last sum a hair under it.
    last_B = np.minimum((gained_BS < need_B[:, None]).sum(axis=1), len(hull.cost) - 1)
    row = np.arange(len(times_BN))
    lacking_B = np.clip(gained_BS[row, last_B] - need_B, 0.0, None)
    efficiency_B = hull.gain[last_B] / hull.cost[last_B]
    spent_B = spent_BS[row, last_B] - lacking_B / efficiency_B
    return cost_B + np.where(need_B > 0, spent_B, 0.0)
