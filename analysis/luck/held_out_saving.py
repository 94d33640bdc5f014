"""The luck-adjusted saving: the part of it that held-out references confirm.

A search tries many outputs and keeps the cheapest that scores no less than the full model's. Some of them score so only
because they happen to agree with the given references. References that had no part in the choice are free of this bias.
So the references of each sequence are split into halves: one half chooses an allocation per sequence, and the other
half tests whether mean quality is still the full model's; if not, the oracle has to spend more.

Limitations:

- References of one sequence are paraphrases by the same author. Accidental common features (a wrong fact, a habit of
  words) still count as quality: luck is underestimated there.
- They also differ in form, such as `Paris` and `The capital of France is Paris.`. An output that is right in the form
  of one half scores low by the other, though this is not luck: luck is overestimated there.
- Half of the references choose, so this is the luck of a search with fewer references than the run had; with more of
  them, less can be gained by luck.
- The point on the curve where the held-out mean reaches the full model's is itself read off the held-out half, at the
  first of several if noise makes it cross more than once. Where nearly all layers are needed, errors can only be on one
  side, so that the saving is overstated: see the table. There the upper end of the interval is the safe reading.
- Sequences with a single reference are left out. Outputs dropped by the search (`--prune`) cannot be chosen.

Bias, simulated (`tests/benchmarks/luck.py`): mean error of the fraction, below 0 if the saving is overstated, for N
sequences of R references; and for 24 of 4 that of four other estimators: the last crossing instead of the first; a
bootstrap correction; all references but one choose and that one scores; nested halves, where a quarter decides where
the curve crosses and another quarter scores from there on.

    world                truth   24, 2   24, 4  100, 2  100, 4     last  bootstrap  leave out  nested
    a third needed        0.34   +0.04   +0.01   -0.00   +0.00    +0.01      +0.00      -0.00   +0.08
    a third, noisy        0.24   +0.10   +0.05   -0.02   +0.02    +0.06      +0.01      +0.02   +0.17
    60 % needed           0.62   +0.02   -0.00   -0.00   +0.00    -0.00      -0.01      -0.01   +0.06
    80 % needed           0.80   +0.01   -0.01   -0.03   +0.01    -0.00      -0.03      -0.03   +0.07
    nearly all needed     0.96   -0.05   -0.04   -0.03   -0.02    -0.04      -0.05      -0.06   -0.01
    all needed            1.00   -0.02   -0.01   +0.00   +0.00    -0.01      -0.01      -0.01   -0.01
    all, gentle rise      1.00   -0.08   -0.07   -0.02   +0.00    -0.06      -0.07      -0.08   -0.09
    all, hardly a rise    1.00   -0.40   -0.25   -0.20   -0.01    -0.16      -0.25      -0.22   -0.28

The worlds differ in how much layers matter against the noise of the references; at `hardly a rise` all layers together
are worth 0.05 of quality and the noise is 0.2. No estimator is better everywhere: the last crossing overstates less
where all layers are needed, nested halves where nearly all are, but both understate the saving where few are (the last
crossing by 0.21 for 24 sequences of 2 references), and nested halves need four references. The 95 % interval over
sequences held the truth in 93 to 100 % of the simulated runs of each row. The noise of outputs is independent there;
equal outputs, of which a run has many, share theirs.

In shapes, X is the prices, or the splits.
"""

from dataclasses import dataclass

import numpy as np

from analysis.experiment import Experiment, as_experiment
from analysis.grouping import FloatArray
from analysis.luck.held_out import SPLITS, Choices, held_out
from analysis.stats import percentile_interval, resampled_counts
from oracle.metrics import qualifies
from oracle.types import RunPath

__all__ = ["DEFINITION", "LuckAdjusted", "luck_adjusted"]

DEFINITION = (
    "least mean fraction at which allocations chosen by one half of each sequence's references keep the full model's "
    "mean quality by the other half; the share of luck is the part of the saving that is lost by that"
)

PRICES = 257
"""Number of prices of quality in cost at which the oracle's curve is computed."""

SLACK = 1e-9
"""Mean qualities closer than this are equal, as for the oracle."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LuckAdjusted:
    """The saving confirmed by held-out references. Fractions are of the full model's cost.

    Attributes:
        fraction: the luck-adjusted equal-quality fraction, see `definition`; 1 if only the full model reaches it.
        interval: its 95 % bootstrap interval over sequences; None without resamples. Its upper end is the safe reading
            where nearly all layers are needed: there `fraction` is too low on average, see the module's docstring.
        apparent: the same if the choosing references also report: the run's headline under the same splits.
        share_of_luck: (fraction - apparent) / (1 - apparent), the part of the apparent saving that is not confirmed; no
            luck is visible at or below 0; NaN if nothing was saved.
        share_interval: its 95 % bootstrap interval.
        minimal: mean minimal budget by the choosing half.
        confirmed: the same where a sequence costs 1 if the other half rates its allocation below the full model. An
            upper bound: an output that is truly as good still loses up to half of such comparisons.
        confirmed_interval: its 95 % bootstrap interval.
        confirmed_share: share of the minimal allocations that the other half rates no lower than the full model.
        sequences: N, with at least two references.
        left_out: number of those with fewer.
        definition: of `fraction`, in words.
    """

    fraction: float
    interval: Interval | None
    apparent: float
    share_of_luck: float
    share_interval: Interval | None
    minimal: float
    confirmed: float
    confirmed_interval: Interval | None
    confirmed_share: float
    sequences: int
    left_out: int
    definition: str = DEFINITION


@dataclass(frozen=True, kw_only=True)
class _Read:
    """One split, or the mean of several: the choice at each price, and the minimal allocations."""

    cost_NX: FloatArray
    quality_NX: FloatArray
    reported_NX: FloatArray
    full_N: FloatArray
    reported_full_N: FloatArray
    minimal_N: FloatArray
    confirmed_N: FloatArray
    holds_N: FloatArray


def luck_adjusted(experiment: RunPath, *, bootstrap: int = 1000, splits: int = SPLITS) -> LuckAdjusted | None:
    """Chooses by one half of the references and reports by the other; see the module's docstring for limitations.

    At each of 257 prices of cost in quality each sequence takes the evaluation of highest quality minus price, which
    gives the oracle's curve up to mixtures within one sequence (the linear relaxation of the knapsack). Costs and
    qualities are averaged over the splits at equal price. On runs of 6 to 24 sequences the fraction differed by at most
    0.011, in either direction, from that of 20,000 prices, far within its interval.

    Args:
        experiment: the run.
        bootstrap: resamples of the sequences behind the intervals; 0 for none.
        splits: halvings of each sequence's references, an even number: both halves choose.

    Returns:
        None if the metric does not compare outputs with references, or fewer than two sequences have two of them.
    """
    experiment = as_experiment(experiment)
    held = held_out(experiment, splits=splits)
    if held is None:
        return None
    scale = float(np.ptp(held.chooser_XE)) or 1.0
    price_X = scale * np.append(np.geomspace(1e3, 1e-3, PRICES - 1), 0.0)
    reads = [
        _read(held.choices(split, experiment.full_cost, experiment.step), price_X, experiment.tolerance)
        for split in range(splits)
    ]
    mean = _Read(**{name: np.mean([vars(read)[name] for read in reads], axis=0) for name in vars(reads[0])})
    N = held.sequences
    weight_BN = resampled_counts(N, bootstrap, experiment.seed) / N
    apparent, fraction, confirmed = (values[0] for values in _fractions(mean, np.full((1, N), 1 / N), experiment))
    apparent_B, fraction_B, confirmed_B = _fractions(mean, weight_BN, experiment)
    return LuckAdjusted(
        fraction=float(fraction),
        interval=percentile_interval(fraction_B),
        apparent=float(apparent),
        share_of_luck=float(_share(apparent, fraction)),
        share_interval=percentile_interval(_share(apparent_B, fraction_B)),
        minimal=float(mean.minimal_N.mean()),
        confirmed=float(confirmed),
        confirmed_interval=percentile_interval(confirmed_B),
        confirmed_share=float(mean.holds_N.mean()),
        sequences=N,
        left_out=held.left_out,
    )


def _read(choices: Choices, price_X: FloatArray, tolerance: float) -> _Read:
    items, row_N = choices.items, np.arange(len(choices.full_N))
    fraction_NC = items.cost_NC / items.full_cost
    # The first among equals is the cheapest.
    chosen_NX = np.stack([(items.quality_NC - price * fraction_NC).argmax(axis=1) for price in price_X], axis=1)
    minimal_N = qualifies(items.quality_NC, choices.full_N[:, None], tolerance).argmax(axis=1)
    holds_N = qualifies(choices.reported_NC[row_N, minimal_N], choices.reported_full_N, tolerance)
    return _Read(
        cost_NX=fraction_NC[row_N[:, None], chosen_NX],
        quality_NX=items.quality_NC[row_N[:, None], chosen_NX],
        reported_NX=choices.reported_NC[row_N[:, None], chosen_NX],
        full_N=choices.full_N,
        reported_full_N=choices.reported_full_N,
        minimal_N=fraction_NC[row_N, minimal_N],
        confirmed_N=np.where(holds_N, fraction_NC[row_N, minimal_N], 1.0),
        holds_N=holds_N.astype(np.float64),
    )


def _fractions(mean: _Read, weight_BN: FloatArray, experiment: Experiment) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Apparent, held-out and confirmed fractions under weights of the sequences."""
    cost_BX = weight_BN @ mean.cost_NX
    target_B = weight_BN @ mean.full_N - experiment.tolerance
    reported_target_B = weight_BN @ mean.reported_full_N - experiment.tolerance
    return (
        _reached(cost_BX, weight_BN @ mean.quality_NX, target_B),
        _reached(cost_BX, weight_BN @ mean.reported_NX, reported_target_B),
        weight_BN @ mean.confirmed_N,
    )


def _reached(cost_BX: FloatArray, quality_BX: FloatArray, target_B: FloatArray) -> FloatArray:
    """Least cost at which quality reaches the target, with two neighbouring choices mixed; 1 if none does."""
    hit_BX = quality_BX >= target_B[:, None] - SLACK
    row_B, after_B = np.arange(len(target_B)), hit_BX.argmax(axis=1)
    before_B = np.maximum(after_B - 1, 0)
    gain_B = quality_BX[row_B, after_B] - quality_BX[row_B, before_B]
    lacking_B = np.clip(target_B - quality_BX[row_B, before_B], 0.0, gain_B.clip(min=0.0))
    part_B = np.divide(lacking_B, gain_B, out=np.zeros_like(gain_B), where=gain_B > 0)
    cost_B = cost_BX[row_B, before_B] + part_B * (cost_BX[row_B, after_B] - cost_BX[row_B, before_B])
    return np.where(hit_BX.any(axis=1), cost_B, 1.0)


def _share(apparent: FloatArray, fraction: FloatArray) -> FloatArray:
    saved = 1 - np.asarray(apparent)
    return np.divide(fraction - apparent, saved, out=np.full_like(saved, np.nan), where=saved > 0)
