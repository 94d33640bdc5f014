"""The curves of the plots as plain numbers, thinned to what is visible."""

from typing import Any

import numpy as np

from analysis.experiment import Experiment
from analysis.formatting import counted, percent
from analysis.luck.null_oracle import GRID
from analysis.per_sequence.layer_use import layer_use_of
from analysis.per_sequence.policies import policy_curves
from analysis.report.parts import Part, task_names
from analysis.report.rows import rounded
from analysis.summary import Summary

__all__ = ["lines_of", "use_by_part"]

POINTS = 300
"""Maximum number of points of a curve."""

POLICIES = {"unified": "unified skipping, zero-shot", "random": "random skipping", "early-exit": "early exit"}


def lines_of(part: Part) -> dict[str, Any]:
    """All curves of a part of a run, over the sequences of its headline, with one sentence per plot."""
    return {
        "oracle": _oracle(part.stated, part.experiment.tolerance),
        "policies": _policies(part.plotted),
        "null": _null(part.stated, part.experiment.tolerance),
        "luck": {name: rounded(column) for name, column in part.curve.items()},
        "words": _words(part),
    }


def use_by_part(experiment: Experiment, summary: Summary, names: list[str]) -> list[dict[str, Any]]:
    """How often the minimal allocations of each part use each layer: `n`, number counted, and `share` per layer."""
    tasks = experiment.sequences.assign(task=task_names(experiment.sequences))
    use = layer_use_of(summary.minimal, tasks, experiment.layers)
    rows = [use.index.get_loc(name) if name else -1 for name in names]
    counted, shares = use["n"].to_numpy(), use.drop(columns="n").to_numpy()
    return [{"n": int(counted[row]), "share": rounded(shares[row], 3)} for row in rows]


def _oracle(summary: Summary, tolerance: float) -> dict[str, Any]:
    frontier = summary.oracle.frontier
    fraction, quality = frontier.fraction, frontier.quality
    if len(fraction) > POINTS:
        # Even steps of quality would hide the flat end, even steps of cost the steep start: both are used.
        steps = np.linspace(0, 1, POINTS // 2)
        by_cost = np.searchsorted(fraction, fraction[0] + steps * (fraction[-1] - fraction[0]))
        by_quality = np.searchsorted(quality, quality[0] + steps * (quality[-1] - quality[0]))
        kept = np.unique(np.minimum(np.concatenate([by_cost, by_quality]), len(fraction) - 1))
        fraction, quality = fraction[kept], quality[kept]
    low, high = summary.equal_quality_interval or (None, None)
    return {
        "x": rounded([*fraction, 1.0]),
        "y": rounded([*quality, quality[-1]]),
        "full": summary.full_quality,
        "point": [summary.equal_quality_fraction, summary.full_quality - tolerance, low, high],
    }


def _policies(experiment: Experiment) -> list[dict[str, Any]]:
    curves = policy_curves(experiment)
    found = {family: curves[curves["family"] == family] for family in POLICIES}
    return [
        {"family": family, "name": POLICIES[family], "x": rounded(curve["fraction"]), "y": rounded(curve["quality"])}
        for family, curve in found.items()
        if len(curve)
    ]


def _null(summary: Summary, tolerance: float) -> dict[str, Any] | None:
    null = summary.null
    if null is None:
        return None
    level = null.full_quality
    return {
        "x": rounded(GRID),
        "y": rounded(null.curve),
        "full": level,
        "point": [null.equal_quality, level - tolerance],
    }


def _words(part: Part) -> dict[str, str]:
    """One sentence per plot."""
    summary, measure = part.summary, part.experiment.measure
    last = part.curve.iloc[-1]
    half = part.curve.iloc[int(np.searchsorted(part.curve["allocations"], round(last["allocations"] / 2)))]
    before, after = percent(half["per_sequence"]), percent(last["per_sequence"])
    course = f"stays at {after}" if before == after else f"falls from {before} to {after}"
    told, equal = part.told, percent(part.stated.equal_quality_fraction)
    over = f"all {counted(summary.sequences)}, none of which tells something,"
    proven, hatched, mean = "No sequence tells something.", "", ""
    if told is not None:
        over = counted(told.sequences)
        proven = f"Proven minimal: {told.certified} of {over} that can tell something; the others are the best found."
        if summary.untold:
            over = f"the {over} that can tell something"
            hatched = f" Hatched: the {summary.untold} that tell nothing."
            mean = " Mean and box: of those that can tell something."
    return {
        "oracle": f"Over {over} an oracle reaches the full model's mean quality with {equal} of the {measure}.",
        "budgets": proven + hatched,
        "tasks": f"One point per sequence (a box if there are many); click a point to open its row.{mean}",
        "use": "Share of the minimal allocations that run each layer, of the sequences that tell something.",
        "luck": f"Over {over}: from {half['allocations']:.0f} to {last['allocations']:.0f} tries per sequence the mean "
        f"minimal budget {course}. A curve that still falls has not reached the minimum.",
    }
