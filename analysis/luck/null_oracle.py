"""The null oracle: the same outputs scored against other sequences' references.

Quality is meaningless there, so its savings come from selection and a low bar alone: the full model scores little
against references that are not its own, often zero, and then every allocation qualifies. A small null fraction
therefore means that *much* can be skipped without any real quality to keep; it is a floor to compare with, not a share
to subtract. The share of luck in a saving is estimated by held-out references: `analysis.luck.held_out_saving`.
"""

from dataclasses import dataclass

import numpy as np

from analysis.display import Shown
from analysis.experiment import Experiment, as_experiment
from analysis.grouping import FloatArray, IntArray, group
from analysis.knapsack.frontier import equal_quality
from analysis.knapsack.items import quality_by_cost
from analysis.per_sequence.savings import mean_fraction, upper_budgets
from oracle.types import RunPath

__all__ = ["GRID", "NullOracle", "derangements", "null_oracle"]

GRID = np.linspace(0.0, 1.0, 201)
"""Mean fractions at which the null oracle's curve is computed."""


@dataclass(frozen=True, kw_only=True, repr=False)
class NullOracle(Shown):
    """Savings under shuffled references, one value per permutation.

    Attributes:
        per_sequence_fractions: mean minimal budget over sequences, over the full model's cost; shape (P,).
        equal_quality_fractions: equal-quality fraction; shape (P,).
        full_qualities: mean quality of the full model; shape (P,).
        zero_shares: share of the sequences where the full model scores no more than the floor; shape (P,).
        curve: best mean quality at the fractions of `GRID`, mean over permutations.
    """

    per_sequence_fractions: FloatArray
    equal_quality_fractions: FloatArray
    full_qualities: FloatArray
    zero_shares: FloatArray
    curve: FloatArray

    @property
    def per_sequence(self) -> float:
        """Mean over permutations of the per-sequence minimal fraction."""
        return float(self.per_sequence_fractions.mean())

    @property
    def per_sequence_spread(self) -> float | None:
        """Its standard deviation over permutations; None for a single one."""
        return _spread(self.per_sequence_fractions)

    @property
    def equal_quality(self) -> float:
        """Mean over permutations of the equal-quality fraction."""
        return float(self.equal_quality_fractions.mean())

    @property
    def equal_quality_spread(self) -> float | None:
        """Its standard deviation over permutations; None for a single one."""
        return _spread(self.equal_quality_fractions)

    @property
    def full_quality(self) -> float:
        """Mean over permutations of the full model's mean quality."""
        return float(self.full_qualities.mean())


def _spread(values: FloatArray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def derangements(n: int, permutations: int, seed: int) -> IntArray:
    """Uniformly random permutations of n >= 2 sequences without fixed points, shape (P, n).

    By rejection: one permutation in e has no fixed point.
    """
    rng = np.random.default_rng(seed)
    found: list[IntArray] = []
    while len(found) < permutations:
        partner_N = rng.permutation(n)
        if not (partner_N == np.arange(n)).any():
            found.append(partner_N)
    return np.stack(found)


def null_oracle(experiment: RunPath, *, permutations: int = 10) -> NullOracle | None:
    """Scores the run against references shuffled between sequences; None without two sequences and a permutation.

    Nothing is generated: the stored outputs are scored again; for likelihoods the value stored against one other
    sequence is used, a single permutation. The permutations are derangements, seeded by the run's seed; fewer for very
    large runs, see `Experiment.affordable_permutations`.
    """
    experiment = as_experiment(experiment)
    N = len(experiment.sequences)
    if N < 2 or permutations < 1:
        return None
    permutations = experiment.affordable_permutations(permutations)
    quality_PE = experiment.shuffled_quality(derangements(N, permutations, experiment.seed))
    rows = [_read(experiment, quality_E) for quality_E in quality_PE]
    per_sequence, equal, full, zero, curves = zip(*rows, strict=True)
    return NullOracle(
        per_sequence_fractions=np.array(per_sequence),
        equal_quality_fractions=np.array(equal),
        full_qualities=np.array(full),
        zero_shares=np.array(zero),
        curve=np.mean(curves, axis=0),
    )


def _read(experiment: Experiment, quality_E: FloatArray) -> tuple[float, float, float, float, FloatArray]:
    """One permutation: mean minimal fraction, equal-quality fraction, full quality, zero share, curve."""
    evaluations = experiment.evaluations[["sequence", "number", "cost"]].assign(null=quality_E)
    upper_N = upper_budgets(evaluations, metric="null", tolerance=experiment.tolerance)
    items, _ = quality_by_cost(evaluations, experiment.full_cost, "null", step=experiment.step)
    full_N = group(evaluations, "null").full
    equal = equal_quality(items, full_N, tolerance=experiment.tolerance)
    return (
        mean_fraction(upper_N, experiment.full_cost),
        equal.fraction,
        equal.full_quality,
        0.0 if experiment.floor is None else float((full_N <= experiment.floor).mean()),
        equal.frontier.quality_at(GRID),
    )
