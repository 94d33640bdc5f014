"""Tables of a study: loss, accuracy and cost per arm, with intervals over seeds.

In shapes, X is the seeds, Y the questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest, t

from analysis.stats import mean_interval
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.measure import Measured
from oracle.skiplayer.tasks import TASKS, Question

__all__ = ["ArmResult", "Results", "tables"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One training of an arm, measured.

    Attributes:
        layers: L; fractional if interpolated.
        parameters: number of weights, including routers.
        losses: loss per training step, in nats/token.
        measured: measurements on held-out rows.
        right_Y: whether each one-shot question was answered correctly.
    """

    layers: float
    parameters: float
    losses: list[float]
    measured: Measured
    right_Y: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of a study.

    Attributes:
        arms: one row per arm: `arm`, `layers`, `parameters`, `density` (executed at inference), `flops` (counted, per
            token), `loss` (held-out, nats/token) with `loss_low` and `loss_high`, `difference` (from SkipLayer's loss,
            paired) with `difference_low` and `difference_high`, `tokens_per_second`, `one_shot` (mean accuracy over
            tasks). Means over seeds. Intervals are 95 %: Student's t over seeds; of a single seed, bootstrap over
            held-out rows. `dense` is interpolated between two depths, linearly in FLOPs, at SkipLayer's FLOPs of the
            same seed (at those of random routing if that arm is not trained); see `extrapolated`.
        density: `arm`, `unit`, `executed`: share of tokens that ran each unit, mean over seeds.
        tasks: `arm`, `task`, `questions`, `right` (mean over seeds), `accuracy`, `low`, `high` (95 %, Wilson, over
            questions). `dense`: of the depth of nearer FLOPs.
        curve: early exit per threshold, first seed: `threshold`, `chosen`, `loss`, `density`, `flops`.
        training: `arm`, `layers`, `seed`, `step`, `loss` (of the step's rows, nats/token; for early exit the mean over
            its exits).
        density_error: |executed - target| of SkipLayer, mean over seeds; None without that arm.
        extrapolated: number of seeds at which those FLOPs lie outside the two depths of `dense`, so that its line is
            extended; the depths enclose the FLOPs at the target density, and SkipLayer may miss it.
    """

    arms: pd.DataFrame
    density: pd.DataFrame
    tasks: pd.DataFrame
    curve: pd.DataFrame
    training: pd.DataFrame
    density_error: float | None
    extrapolated: int

    def frames(self) -> dict[str, pd.DataFrame]:
        """Tables by name."""
        names = ("arms", "density", "tasks", "curve", "training")
        return {name: getattr(self, name) for name in names}


def tables(
    config: SkipConfig,
    done: Mapping[str, list[ArmResult]],
    curve: list[dict[str, float]],
    asked: list[Question],
    target: float,
) -> Results:
    """Assembles the tables from the measurements.

    Args:
        config: settings.
        done: per arm the trainings, by seed; for `dense` two per seed, the shallower one first.
        curve: early exit per threshold.
        asked: the questions.
        target: FLOPs per token of random routing.
    """
    skip = done.get("skiplayer")
    arms, extrapolated = dict(done), 0
    if "dense" in done:
        flops = [one.measured.flops for one in skip] if skip else [target] * config.seeds
        pairs = list(zip(done["dense"][::2], done["dense"][1::2], flops, strict=True))
        arms["dense"] = [_between(low, high, at) for low, high, at in pairs]
        extrapolated = sum(not low.measured.flops <= at <= high.measured.flops for low, high, at in pairs)
    tasks = [row for arm, found in arms.items() for row in _tasks(arm, asked, found)]
    accuracy = pd.DataFrame(tasks, columns=["arm", "task", "questions", "right", "accuracy", "low", "high"])
    mean = accuracy.groupby("arm")["accuracy"].mean()
    density = [
        {"arm": arm, "unit": unit, "executed": executed}
        for arm, found in arms.items()
        for unit, executed in enumerate(np.mean([one.measured.density_U for one in found], axis=0).tolist())
    ]
    training = [
        {"arm": arm, "layers": one.layers, "seed": config.seed + place // (len(found) // config.seeds)}
        | {"step": step, "loss": loss}
        for arm, found in done.items()
        for place, one in enumerate(found)
        for step, loss in enumerate(one.losses)
    ]
    errors = None if skip is None else [abs(one.measured.density - config.density) for one in skip]
    return Results(
        arms=pd.DataFrame(
            {"arm": arm, **_arm(found, None if arm == "skiplayer" else skip, config.seed), "one_shot": mean.get(arm)}
            for arm, found in arms.items()
        ),
        density=pd.DataFrame(density),
        tasks=accuracy,
        curve=pd.DataFrame(curve, columns=["threshold", "chosen", "loss", "density", "flops"]),
        training=pd.DataFrame(training),
        density_error=None if errors is None else float(np.mean(errors)),
        extrapolated=extrapolated,
    )


def _between(low: ArmResult, high: ArmResult, flops: float) -> ArmResult:
    """The dense model of equal FLOPs, on the line through its two neighbours.

    Its questions are those of the nearer one, because right or wrong cannot be interpolated.
    """
    share = (flops - low.measured.flops) / (high.measured.flops - low.measured.flops)

    def at(first: float, second: float) -> float:
        return first + share * (second - first)

    return ArmResult(
        layers=at(low.layers, high.layers),
        parameters=at(low.parameters, high.parameters),
        losses=[],
        measured=Measured(
            loss_R=low.measured.loss_R + share * (high.measured.loss_R - low.measured.loss_R),
            density_U=high.measured.density_U,
            flops=flops,
            tokens_per_second=1 / at(1 / low.measured.tokens_per_second, 1 / high.measured.tokens_per_second),
        ),
        right_Y=(low if share < 0.5 else high).right_Y,
    )


def _arm(found: list[ArmResult], skip: list[ArmResult] | None, seed: int) -> dict[str, Any]:
    loss_XR = np.stack([one.measured.loss_R for one in found])
    low, high = _interval(loss_XR, seed)
    row: dict[str, Any] = {
        "layers": float(np.mean([one.layers for one in found])),
        "parameters": float(np.mean([one.parameters for one in found])),
        "density": float(np.mean([one.measured.density for one in found])),
        "flops": float(np.mean([one.measured.flops for one in found])),
        "loss": float(loss_XR.mean()),
        "loss_low": low,
        "loss_high": high,
        **dict.fromkeys(("difference", "difference_low", "difference_high")),
        "tokens_per_second": float(np.mean([one.measured.tokens_per_second for one in found])),
    }
    if skip is not None:
        difference_XR = loss_XR - np.stack([one.measured.loss_R for one in skip])
        low, high = _interval(difference_XR, seed)
        row |= {"difference": float(difference_XR.mean()), "difference_low": low, "difference_high": high}
    return row


def _interval(value_XR: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % interval of the mean: Student's t over seeds; of a single seed, percentile bootstrap over rows."""
    if len(value_XR) > 1:
        mean_X = value_XR.mean(1)
        half = t.ppf(0.975, len(mean_X) - 1) * mean_X.std(ddof=1) / len(mean_X) ** 0.5
        return float(mean_X.mean() - half), float(mean_X.mean() + half)
    return mean_interval(value_XR[0], resamples=RESAMPLES, seed=seed) or (np.nan, np.nan)


def _tasks(arm: str, asked: list[Question], found: list[ArmResult]) -> list[dict[str, Any]]:
    rows, right_Y = [], np.mean([one.right_Y for one in found], axis=0)
    for task in TASKS:
        of_task = right_Y[np.array([question.task == task for question in asked], dtype=np.bool_)]
        if len(of_task):
            # Seeds answer the same questions, so they add none to the interval.
            bounds = binomtest(round(float(of_task.sum())), len(of_task)).proportion_ci(method="wilson")
            rows.append(
                {
                    "arm": arm,
                    "task": task,
                    "questions": len(of_task),
                    "right": float(of_task.sum()),
                    "accuracy": float(of_task.mean()),
                    "low": float(bounds.low),
                    "high": float(bounds.high),
                }
            )
    return rows
