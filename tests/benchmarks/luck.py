"""Bias of the luck-adjusted saving, and of other ways to estimate it, where the true qualities are known.

    python tests/benchmarks/luck.py [--json] [--replicates 60]

Simulated runs: per sequence 21 evaluations of costs 0 to 1, whose true quality rises with the cost by `rise` and
differs at random by `real`; each reference sees it with noise of its own (`noise`), and the best of several counts. The
truth is the least mean fraction at which the *true* mean quality of the allocations chosen by one half of the
references is the full model's. In shapes, N is the sequences, K the evaluations, R the references, X the prices.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.luck.held_out import halves
from analysis.stats import resampled_counts

Floats = NDArray[np.float64]
Half = tuple[int, ...]

COSTS = 21
PRICES = 257
SLACK = 1e-9

WORLDS = {
    "a third needed": {"real": 0.1, "noise": 0.1, "rise": 0.2},
    "a third, noisy": {"real": 0.1, "noise": 0.2, "rise": 0.1},
    "60 % needed": {"real": 0.1, "noise": 0.1, "rise": 0.4},
    "80 % needed": {"real": 0.1, "noise": 0.2, "rise": 0.4},
    "nearly all needed": {"real": 0.1, "noise": 0.3, "rise": 0.4},
    "all needed": {"real": 0.0, "noise": 0.2, "rise": 0.4},
    "all, gentle rise": {"real": 0.0, "noise": 0.1, "rise": 0.05},
    "all, hardly a rise": {"real": 0.0, "noise": 0.2, "rise": 0.05},
}
SIZES = ((24, 2), (24, 4), (100, 2), (100, 4))
"""Numbers of sequences and of references of each."""


def simulated(
    rng: np.random.Generator, sequences: int, references: int, *, real: float, noise: float, rise: float
) -> tuple[Floats, Floats]:
    """True qualities (N K), the full model's last, and as each reference sees them (N K R)."""
    share_K = np.linspace(0, 1, COSTS)
    hard_N1 = rng.uniform(0.3, 0.9, (sequences, 1))
    truth_NK = 0.3 + rise / (1 + np.exp(-(share_K - hard_N1) / 0.1)) + rng.normal(0, real, (sequences, COSTS))
    return truth_NK, truth_NK[..., None] + rng.normal(0, noise, (*truth_NK.shape, references))


class Chosen:
    """The choice at every price, by some references: the oracle's curve, as in `analysis.luck_adjusted`."""

    def __init__(self, seen_NKR: Floats, by: Half) -> None:
        self.seen_NKR = seen_NKR
        share_K, chooser_NK = np.linspace(0, 1, seen_NKR.shape[1]), _best(seen_NKR, by)
        scale = float(np.ptp([_best(seen_NKR, half) for half, _ in _halves(seen_NKR)]))
        price_X = scale * np.append(np.geomspace(1e3, 1e-3, PRICES - 1), 0.0)
        self.choice_NX = np.stack([(chooser_NK - price * share_K).argmax(axis=1) for price in price_X], axis=1)
        self.cost_NX = share_K[self.choice_NX]
        self.cost_X = self.cost_NX.mean(axis=0)

    def gain(self, quality_NK: Floats) -> Floats:
        """Quality of the choices above the full model's, by other references or in truth (N X)."""
        return np.asarray(np.take_along_axis(quality_NK, self.choice_NX, axis=1) - quality_NK[:, -1:])

    def gain_by(self, references: Half) -> Floats:
        """The same by references."""
        return self.gain(_best(self.seen_NKR, references))


def _best(seen_NKR: Floats, references: Half) -> Floats:
    return np.asarray(seen_NKR[..., list(references)].max(axis=-1))


def first(cost_X: Floats, gain_X: Floats) -> float:
    """Least cost at which nothing is lost, between two prices interpolated; 1 if there is none."""
    return _crossing(cost_X, gain_X, int((gain_X >= -SLACK).argmax())) if (gain_X >= -SLACK).any() else 1.0


def last(cost_X: Floats, gain_X: Floats) -> float:
    """Least cost from which on nothing is lost; 1 if there is none."""
    after = int(np.append(-1, np.flatnonzero(gain_X < -SLACK))[-1]) + 1
    return _crossing(cost_X, gain_X, after) if after < len(gain_X) else 1.0


def _crossing(cost_X: Floats, gain_X: Floats, after: int) -> float:
    before = max(after - 1, 0)
    rise = float(gain_X[after] - gain_X[before])
    part = min(1.0, max(0.0, -float(gain_X[before]) / rise)) if rise > 0 else 0.0
    return float(cost_X[before] + part * (cost_X[after] - cost_X[before]))


def _read(seen_NKR: Floats, splits: Iterable[tuple[Half, Half]]) -> tuple[Floats, Floats]:
    """Cost and gain at each price (N X), mean over splits into choosing and scoring references."""
    read = [(chosen.cost_NX, chosen.gain_by(other)) for one, other in splits for chosen in [Chosen(seen_NKR, one)]]
    cost_NX, gain_NX = np.mean(read, axis=0)
    return cost_NX, gain_NX


def in_halves(seen_NKR: Floats, at: Callable[[Floats, Floats], float] = first) -> float:
    """One half chooses, the other scores: `analysis.luck_adjusted`."""
    cost_NX, gain_NX = _read(seen_NKR, _halves(seen_NKR))
    return at(cost_NX.mean(axis=0), gain_NX.mean(axis=0))


def leave_one_out(seen_NKR: Floats) -> float:
    """All references but one choose, that one scores."""
    every = range(seen_NKR.shape[2])
    cost_NX, gain_NX = _read(seen_NKR, [(tuple(r for r in every if r != one), (one,)) for one in every])
    return first(cost_NX.mean(axis=0), gain_NX.mean(axis=0))


def nested(seen_NKR: Floats) -> float:
    """One half chooses, a quarter decides where nothing is lost, and the last scores from there on; 4 references."""
    found = []
    for one, other in _halves(seen_NKR):
        chosen, middle = Chosen(seen_NKR, one), len(other) // 2
        for decides, scores in ((other[:middle], other[middle:]), (other[middle:], other[:middle])):
            holds_X = chosen.gain_by(decides).mean(axis=0) >= -SLACK
            start = int(holds_X.argmax())
            rest_X = chosen.gain_by(scores).mean(axis=0)[start:]
            found.append(first(chosen.cost_X[start:], rest_X) if holds_X.any() else 1.0)
    return float(np.mean(found))


def resampled(seen_NKR: Floats, resamples: int = 200) -> Floats:
    """Halves over resamples of the sequences (B)."""
    cost_NX, gain_NX = _read(seen_NKR, _halves(seen_NKR))
    weight_BN = resampled_counts(len(cost_NX), resamples, seed=0) / len(cost_NX)
    return np.array([first(*curves) for curves in zip(weight_BN @ cost_NX, weight_BN @ gain_NX, strict=True)])


def bootstrapped(seen_NKR: Floats) -> float:
    """Halves, less the bias that resampling the sequences shows."""
    return float(np.clip(2 * in_halves(seen_NKR) - resampled(seen_NKR).mean(), 0, 1))


def _halves(seen_NKR: Floats) -> list[tuple[Half, Half]]:
    R = seen_NKR.shape[2]
    return halves(R, 2 if R == 2 else 6, np.random.default_rng(0))


ESTIMATORS: dict[str, Callable[[Floats], float]] = {
    "halves": in_halves,
    "halves, last crossing": lambda seen_NKR: in_halves(seen_NKR, last),
    "halves, bootstrap": bootstrapped,
    "leave one out": leave_one_out,
    "nested halves": nested,
}
"""By name; `halves` is the one that the package uses."""


def true_fraction(truth_NK: Floats, seen_NKR: Floats, choosers: Iterable[Half]) -> float:
    """Least mean fraction at which the choices of some references lose nothing in truth; mean over choosers."""
    return float(
        np.mean(
            [
                first(chosen.cost_X, chosen.gain(truth_NK).mean(axis=0))
                for by in choosers
                for chosen in [Chosen(seen_NKR, by)]
            ]
        )
    )


def biases(
    sequences: int,
    references: int,
    world: dict[str, float],
    *,
    replicates: int,
    seed: int = 0,
    names: Iterable[str] = tuple(ESTIMATORS),
) -> dict[str, Any]:
    """True fractions, mean error of each estimator with its standard error, and how often its interval holds."""
    rng, errors = np.random.default_rng(seed), dict[str, list[float]]()
    true, true_of_all, held = [], [], []
    for _ in range(replicates):
        truth_NK, seen_NKR = simulated(rng, sequences, references, **world)
        true.append(true_fraction(truth_NK, seen_NKR, [one for one, _ in _halves(seen_NKR)]))
        true_of_all.append(true_fraction(truth_NK, seen_NKR, [tuple(range(references))]))
        low, high = np.quantile(resampled(seen_NKR), [0.025, 0.975])
        held.append(low - SLACK <= true[-1] <= high + SLACK)
        for name in names:
            if name != "nested halves" or references >= 4:
                errors.setdefault(name, []).append(ESTIMATORS[name](seen_NKR) - true[-1])
    return {
        "truth": float(np.mean(true)),
        "truth_all_choose": float(np.mean(true_of_all)),
        "interval_holds": float(np.mean(held)),
        "bias": {name: float(np.mean(each)) for name, each in errors.items()},
        "standard_error": {name: float(np.std(each, ddof=1) / np.sqrt(replicates)) for name, each in errors.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--replicates", type=int, default=60)
    arguments = parser.parse_args()
    began, rows = time.monotonic(), []
    if not arguments.json:
        names = "".join(f"{name:>23}" for name in ESTIMATORS)
        print(f"{'world':20}{'N':>5}{'R':>3}{'truth':>8}{'if all choose':>15}{'95 % interval holds':>21}{names}")
    for world, settings in WORLDS.items():
        for sequences, references in SIZES:
            found = biases(sequences, references, settings, replicates=arguments.replicates)
            rows.append({"world": world, "sequences": sequences, "references": references, **found})
            if not arguments.json:
                cells = [f"{found['bias'][n]:+.3f}" if n in found["bias"] else "-" for n in ESTIMATORS]
                start = f"{world:20}{sequences:5}{references:3}{found['truth']:8.3f}{found['truth_all_choose']:15.3f}"
                start += f"{100 * found['interval_holds']:19.0f} %"
                print(start + "".join(f"{cell:>23}" for cell in cells), flush=True)
    if arguments.json:
        print(json.dumps(rows))
    else:
        worst = max(error for row in rows for error in row["standard_error"].values())
        print(
            f"Mean error against the truth, over {arguments.replicates} simulated runs each (standard errors up to "
            f"{worst:.3f}); below 0 the saving is overstated. N sequences of R references. "
            f"{time.monotonic() - began:.0f} s."
        )


if __name__ == "__main__":
    main()
