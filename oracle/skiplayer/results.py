"""Tables of a study: loss, accuracy and cost per arm, with intervals.

In shapes, X is the questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from analysis.stats import mean_interval
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.measure import Measured
from oracle.skiplayer.tasks import TASKS, Question

__all__ = ["ArmResult", "Results", "tables"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """A trained and measured arm.

    Attributes:
        layers: L.
        parameters: number of weights, including routers.
        losses: loss per training step, in nats/token.
        measured: measurements on held-out rows.
        right_X: whether each one-shot question was answered correctly.
    """

    layers: int
    parameters: int
    losses: list[float]
    measured: Measured
    right_X: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of a study, for one seed.

    Attributes:
        arms: one row per arm: `arm`, `layers`, `parameters`, `density` (executed at inference), `flops` (counted, per
            token), `loss` (held-out, nats/token) with `loss_low` and `loss_high`, `difference` (from SkipLayer's loss,
            paired) with `difference_low` and `difference_high`, `tokens_per_second`, `one_shot` (mean accuracy over
            tasks). Intervals are 95 % bootstrap over held-out rows.
        density: `arm`, `unit`, `executed`: share of tokens that ran each unit.
        tasks: `arm`, `task`, `questions`, `right`, `accuracy`, `low`, `high` (95 %, Wilson).
        curve: early exit per threshold: `threshold`, `chosen`, `loss`, `density`, `flops`.
        training: `arm`, `step`, `loss` (of the step's rows, nats/token; for early exit the mean over its exits).
        density_error: |executed - target| of SkipLayer; None without that arm.
    """

    arms: pd.DataFrame
    density: pd.DataFrame
    tasks: pd.DataFrame
    curve: pd.DataFrame
    training: pd.DataFrame
    density_error: float | None

    def frames(self) -> dict[str, pd.DataFrame]:
        """Tables by name."""
        names = ("arms", "density", "tasks", "curve", "training")
        return {name: getattr(self, name) for name in names}


def tables(
    config: SkipConfig, done: Mapping[str, ArmResult], curve: list[dict[str, float]], asked: list[Question]
) -> Results:
    """Assembles the tables from the measurements per arm."""
    tasks = [row for arm, one in done.items() for row in _tasks(arm, asked, one.right_X)]
    accuracy = pd.DataFrame(tasks, columns=["arm", "task", "questions", "right", "accuracy", "low", "high"])
    mean = accuracy.groupby("arm")["accuracy"].mean()
    skip = done["skiplayer"].measured if "skiplayer" in done else None
    density = [
        {"arm": arm, "unit": unit, "executed": executed}
        for arm, one in done.items()
        for unit, executed in enumerate(one.measured.density_U.tolist())
    ]
    training = [
        {"arm": arm, "step": step, "loss": loss} for arm, one in done.items() for step, loss in enumerate(one.losses)
    ]
    return Results(
        arms=pd.DataFrame(
            {"arm": arm, **_arm(one, None if arm == "skiplayer" else skip, config.seed), "one_shot": mean.get(arm)}
            for arm, one in done.items()
        ),
        density=pd.DataFrame(density),
        tasks=accuracy,
        curve=pd.DataFrame(curve, columns=["threshold", "chosen", "loss", "density", "flops"]),
        training=pd.DataFrame(training),
        density_error=None if skip is None else abs(skip.density - config.density),
    )


def _arm(done: ArmResult, skip: Measured | None, seed: int) -> dict[str, Any]:
    one = done.measured
    low, high = mean_interval(one.loss_R, resamples=RESAMPLES, seed=seed) or (np.nan, np.nan)
    row: dict[str, Any] = {
        "layers": done.layers,
        "parameters": done.parameters,
        "density": one.density,
        "flops": one.flops,
        "loss": one.loss,
        "loss_low": low,
        "loss_high": high,
        **dict.fromkeys(("difference", "difference_low", "difference_high")),
        "tokens_per_second": one.tokens_per_second,
    }
    if skip is not None:
        difference_R = one.loss_R - skip.loss_R
        low, high = mean_interval(difference_R, resamples=RESAMPLES, seed=seed) or (np.nan, np.nan)
        row |= {"difference": float(difference_R.mean()), "difference_low": low, "difference_high": high}
    return row


def _tasks(arm: str, asked: list[Question], right_X: NDArray[np.bool_]) -> list[dict[str, Any]]:
    rows = []
    for task in TASKS:
        of_task = right_X[np.array([question.task == task for question in asked], dtype=np.bool_)]
        if len(of_task):
            test = binomtest(int(of_task.sum()), len(of_task))
            bounds = test.proportion_ci(method="wilson")
            rows.append(
                {
                    "arm": arm,
                    "task": task,
                    "questions": len(of_task),
                    "right": int(of_task.sum()),
                    "accuracy": float(of_task.mean()),
                    "low": float(bounds.low),
                    "high": float(bounds.high),
                }
            )
    return rows
