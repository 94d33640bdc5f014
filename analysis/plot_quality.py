"""The figure of the data-set oracle: mean quality against the mean fraction of layers."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.load import Experiment
from analysis.luck import GRID
from analysis.policies import policy_curves
from analysis.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    basis,
    headline,
    metric_label,
    per_token,
    percent,
    percent_axis,
    styled,
)
from analysis.summary import Summary

__all__ = ["oracle_quality"]

# Families in the order of the legend: label, colour, line style, marker.
_POLICIES: dict[str, tuple[str, str, Any, str]] = {
    "unified": ("unified skipping", ORANGE, (0, (5, 1.5)), "s"),
    "random": ("random skipping", GREEN, (0, (1, 1.2)), "^"),
    "early-exit": ("early exit", VERMILLION, (0, (5, 1.5, 1, 1.5)), "D"),
}


def oracle_quality(experiment: Experiment, summary: Summary) -> Figure:
    """Mean quality against the mean fraction of layers: the oracle, its null control and fixed policies."""
    tolerance = experiment.tolerance
    with styled():
        figure = Figure(figsize=(7.2, 4.8))
        axes = figure.add_subplot()
        # A column of the legend each.
        drawn = [
            *_draw_oracle(axes, summary, tolerance),
            *_draw_policies(axes, experiment),
            *_draw_null(axes, summary, tolerance),
        ]
        axes.set_xlabel(f"mean fraction of {per_token(experiment.measure, 'run ')}")
        axes.set_ylabel(f"mean {metric_label(experiment.metric)}")
        axes.set_xlim(-0.012, 1.012)
        percent_axis(axes.xaxis)
        less = f" less {tolerance:g}" if tolerance else ""
        needed = percent(summary.equal_quality_fraction)
        finding = f"An oracle keeps the full model's mean quality{less} with {needed} of the {experiment.measure}"
        headline(axes, finding, _detail(summary))
        figure.legend(handles=drawn, loc="outside lower center", ncols=3, handlelength=3.2, columnspacing=2.5)
        return figure


def _detail(summary: Summary) -> str:
    known = basis(summary.sequences, summary.allocations_per_sequence, summary.equal_quality_interval)
    if summary.null_equal_quality_fraction is None:
        return known
    return f"{known}; {percent(summary.null_equal_quality_fraction)} against shuffled references"


def _draw_oracle(axes: Axes, summary: Summary, tolerance: float) -> list[Any]:
    oracle = summary.oracle
    fraction_C, quality_C = oracle.frontier.fraction, oracle.frontier.quality
    fraction_C, quality_C = np.append(fraction_C, 1.0), np.append(quality_C, quality_C[-1])
    curve = axes.step(fraction_C, quality_C, where="post", color=BLUE, linewidth=2.2, label="oracle")
    full: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": (0, (6, 3))}
    level = axes.axhline(oracle.full_quality, label="full model, all layers", **full)
    low, high = summary.equal_quality_interval or (oracle.fraction, oracle.fraction)
    point = axes.errorbar(
        [oracle.fraction],
        [oracle.full_quality - tolerance],
        xerr=[[max(0.0, oracle.fraction - low)], [max(0.0, high - oracle.fraction)]],
        fmt="o",
        markersize=8,
        color=BLUE,
        markeredgecolor="white",
        elinewidth=1.8,
        capsize=4,
        zorder=5,
        label="equal quality, 95 % interval" if summary.equal_quality_interval else "equal quality",
    )
    return [*curve, level, point]


def _draw_policies(axes: Axes, experiment: Experiment) -> list[Any]:
    curves = policy_curves(experiment.evaluations, full_cost=experiment.full_cost, metric=experiment.metric)
    drawn: list[Any] = []
    for family, (label, color, dashes, marker) in _POLICIES.items():
        curve = curves[curves["family"] == family]
        look: dict[str, Any] = {"color": color, "linestyle": dashes, "linewidth": 1.4}
        mark: dict[str, Any] = {"marker": marker, "markersize": 4, "markevery": max(1, len(curve) // 10)}
        if len(curve):
            drawn += axes.plot(curve["fraction"], curve["quality"], label=label, **look, **mark)
    return drawn


def _draw_null(axes: Axes, summary: Summary, tolerance: float) -> list[Any]:
    null = summary.null
    if null is None:
        return []
    level = null.full_quality
    curve = axes.plot(GRID, null.curve, color=GREY, linewidth=1.1, label="null oracle (shuffled references)")
    line = axes.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), label="full model, shuffled")
    mark: dict[str, Any] = {
        "marker": "o",
        "markersize": 7,
        "markerfacecolor": "white",
        "markeredgecolor": GREY,
    }
    label = "equal quality, shuffled references"
    point = axes.plot([null.equal_quality], [level - tolerance], linestyle="none", zorder=4, label=label, **mark)
    return [*curve, line, *point]
