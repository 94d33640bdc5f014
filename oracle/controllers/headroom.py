"""Share of the oracle's headroom over the best static mask that a controller captures, at equal fraction.

In shapes, X is the points of the static curve.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import analysis
from analysis.knapsack.frontier import oracle_frontier
from analysis.knapsack.items import quality_by_cost
from analysis.luck.null_oracle import GRID
from analysis.stats import CONFIDENCE, percentile_interval

__all__ = ["RESAMPLES", "Baselines", "Frontiers", "captured"]

FloatArray = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Qualities at one mean fraction.

    Attributes:
        static_N: quality of the best static mask per sequence, out of sample; between two masks of the curve, the
            expectation of a random choice between them.
        oracle_N: quality of the data-set oracle per sequence.
        null: mean quality of the null oracle, against shuffled references; None if not available.
        mixed: mean quality of the best random mixture of static masks, including the empty mask and the full model:
            the level reached without any information about the sequence.
    """

    static_N: FloatArray
    oracle_N: FloatArray
    null: float | None
    mixed: float


class Frontiers:
    """The oracle's frontier, the null oracle's, and the static curve.

    Args:
        experiment: the run, in layers.
        ids: the sequences, in the order of all arrays.
        static: mean fraction and out-of-sample quality per sequence (N) of each point of the static curve, including
            the full model and the empty mask.
    """

    def __init__(self, experiment: analysis.Experiment, ids: list[str], static: list[tuple[float, FloatArray]]) -> None:
        items, _ = quality_by_cost(
            experiment.evaluations, experiment.full_cost, experiment.metric, step=experiment.step
        )
        self._frontier, self._items = oracle_frontier(items), items
        # Items stand in the order of the evaluations.
        names = list(dict.fromkeys(experiment.evaluations["sequence"]))
        self._order = [names.index(name) for name in ids]
        null = analysis.null_oracle(experiment)
        self._null = None if null is None else null.curve
        curve = sorted(static, key=lambda point: point[0])
        self._at_X = np.array([fraction for fraction, _ in curve])
        self._static_XN = np.stack([quality_N for _, quality_N in curve])

    def at(self, fraction: float) -> Baselines:
        """Baselines at a mean fraction; fractions above 1 count as 1."""
        at = min(fraction, 1.0)
        static_N = np.array([np.interp(at, self._at_X, column) for column in self._static_XN.T])
        return Baselines(
            static_N=static_N,
            oracle_N=self._oracle(at),
            null=None if self._null is None else float(np.interp(at, GRID, self._null)),
            mixed=self._mixed(at),
        )

    def _oracle(self, fraction: float) -> FloatArray:
        """Quality per sequence of the oracle's choice under a mean budget."""
        least = float(self._frontier.fraction[0])
        cost_N = self._frontier.costs(max(fraction, least))
        column_N = (self._items.cost_NC == cost_N[:, None]).argmax(1)
        return self._items.qualities(column_N)[self._order]

    def _mixed(self, fraction: float) -> float:
        """Upper concave hull of the static curve's means."""
        mean_X, best = self._static_XN.mean(1), -np.inf
        for low, x in enumerate(self._at_X):
            for high, y in enumerate(self._at_X):
                if x <= fraction <= y:
                    share = 0.0 if x == y else (fraction - x) / (y - x)
                    best = max(best, (1 - share) * mean_X[low] + share * mean_X[high])
        return float(best)


def captured(
    quality_N: FloatArray, low_N: FloatArray, high_N: FloatArray, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, float | None, float | None]:
    """(controller - static best) / (oracle - static best), with a 95 % paired bootstrap interval over sequences.

    Sequences are resampled with all three of their qualities; the choices of the oracle and of the static curve stay
    those of the whole data set, at the controller's mean fraction.

    Args:
        quality_N: quality of the controller.
        low_N: quality of the best static mask at equal fraction.
        high_N: quality of the oracle at equal fraction.
        seed: seed of the resampling.
        resamples: number of resamples, B.

    Returns:
        Share and both ends of its interval. All None if the oracle is no better than the static mask; the ends are None
        if that holds in more than 1 of 40 resamples, or with fewer than two sequences.
    """
    gained_N, room_N = quality_N - low_N, high_N - low_N
    if not room_N.mean() > 1e-9:
        return None, None, None
    share = float(gained_N.mean() / room_N.mean())
    if len(quality_N) < 2:
        return share, None, None
    rows_BN = np.random.default_rng(seed).integers(len(quality_N), size=(resamples, len(quality_N)))
    gained_B, room_B = gained_N[rows_BN].mean(1), room_N[rows_BN].mean(1)
    sound_B = room_B > 1e-9
    if sound_B.mean() < (1 + CONFIDENCE) / 2:
        return share, None, None
    return share, *(percentile_interval(gained_B[sound_B] / room_B[sound_B]) or (None, None))
