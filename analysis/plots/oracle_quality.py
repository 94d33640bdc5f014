"""The figure of the data-set oracle: mean quality against the mean fraction of layers.

In shapes, X is the points of a curve.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.experiment import Experiment
from analysis.formatting import basis, metric_label, per_token, percent
from analysis.luck.null_oracle import GRID
from analysis.per_sequence.policies import policy_curves
from analysis.plots.source import Drawn, Source
from analysis.plots.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, frame, percent_axis, styled
from analysis.summary import Summary

__all__ = ["oracle_quality"]

POINTS = 1001
"""Maximum number of points drawn of the oracle's curve."""

_DASHED: Any = {"linestyle": (0, (6, 3)), "linewidth": 1.1}
_DOTTED: Any = {"linestyle": (0, (2, 2)), "linewidth": 0.9}

# Series in the order of the legend: label, colour, look.
_CURVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "oracle": ("oracle", BLUE, {"drawstyle": "steps-post", "linewidth": 2.2}),
    "full model": ("full model, all layers", "black", _DASHED),
    "equal quality": ("equal quality", BLUE, {"marker": "o", "markersize": 8, "linestyle": "none"}),
    "unified": ("unified skipping, zero-shot", ORANGE, {"linestyle": (0, (5, 1.5)), "marker": "s", "markersize": 4}),
    "random": ("random skipping", GREEN, {"linestyle": (0, (1, 1.2)), "marker": "^", "markersize": 4}),
    "early-exit": ("early exit", VERMILLION, {"linestyle": (0, (5, 1.5, 1, 1.5)), "marker": "D", "markersize": 4}),
    "null oracle": ("null oracle (shuffled references)", GREY, {"linewidth": 1.1}),
    "full model, null": ("full model, shuffled", GREY, _DOTTED),
    "equal quality, null": (
        "equal quality, shuffled references",
        GREY,
        {"marker": "o", "markersize": 7, "markerfacecolor": "white", "linestyle": "none"},
    ),
}


@styled()
def oracle_quality(source: Source) -> Drawn:
    """Mean quality against the mean fraction of layers: the oracle, its null control and fixed policies.

    Returns:
        Numbers: `series`, `fraction`, `quality` (means over sequences), `fraction_low`, `fraction_high` (95 % bootstrap
        interval of the equal-quality point).
    """
    told = source.told
    experiment, summary = told.experiment, told.summary
    table = _numbers(experiment, summary)
    figure = Figure(figsize=(7.2, 4.0))
    axes = figure.add_subplot()
    drawn = [_draw(axes, name, table[table["series"] == name]) for name in _CURVES if name in set(table["series"])]
    axes.set_xlabel(f"mean fraction of {per_token(experiment.measure, 'run ')}")
    axes.set_ylabel(f"mean {metric_label(experiment.metric)}")
    axes.set_xlim(-0.012, 1.012)
    percent_axis(axes.xaxis)
    less = f" less {experiment.tolerance:g}" if experiment.tolerance else ""
    needed = percent(summary.equal_quality_fraction)
    finding = f"An oracle keeps the full model's mean quality{less} with {needed} of the {experiment.measure}"
    frame(figure, finding, _detail(summary) + source.beside, legend=drawn)
    return table, figure


def _numbers(experiment: Experiment, summary: Summary) -> pd.DataFrame:
    frontier, null, ends = summary.oracle.frontier, summary.null, [0.0, 1.0]
    fraction_X = np.append(frontier.fraction, 1.0) if len(frontier.fraction) < POINTS else np.linspace(0, 1, POINTS)
    curves = policy_curves(experiment.evaluations, full_cost=experiment.full_cost, metric=experiment.metric)
    policies = curves[curves["family"].isin(list(_CURVES))].rename(columns={"family": "series"})
    series: dict[str, tuple[Any, Any]] = {
        "oracle": (fraction_X, frontier.quality_at(fraction_X)),
        "full model": (ends, summary.full_quality),
        "equal quality": ([summary.equal_quality_fraction], summary.full_quality - experiment.tolerance),
    }
    if null:
        series["null oracle"] = GRID, null.curve
        series["full model, null"] = ends, null.full_quality
        series["equal quality, null"] = [null.equal_quality], null.full_quality - experiment.tolerance
    tables = [pd.DataFrame({"series": name, "fraction": x, "quality": y}) for name, (x, y) in series.items()]
    table = pd.concat([*tables, policies[["series", "fraction", "quality"]]], ignore_index=True)
    point = (table["series"] == "equal quality").to_numpy()
    low, high = summary.equal_quality_interval or (np.nan, np.nan)
    return table.assign(fraction_low=np.where(point, low, np.nan), fraction_high=np.where(point, high, np.nan))


def _draw(axes: Axes, name: str, rows: pd.DataFrame) -> Any:
    label, color, look = _CURVES[name]
    look = {"color": color, "linewidth": 1.4, **look}
    x, y = rows["fraction"].to_numpy(), rows["quality"].to_numpy()
    if name == "equal quality":
        look |= {"markeredgecolor": "white", "zorder": 5}
        [low], [high] = rows["fraction_low"], rows["fraction_high"]
        if np.isfinite(low):
            reach = np.clip([[x[0] - low], [high - x[0]]], 0, None)
            look |= {"xerr": reach, "elinewidth": 1.8, "capsize": 4, "label": f"{label}, 95 % interval"}
        return axes.errorbar(x, y, **{"label": label, **look})
    return axes.plot(x, y, label=label, markevery=max(1, len(x) // 10), **look)[0]


def _detail(summary: Summary) -> str:
    known = basis(summary.sequences, summary.allocations_per_sequence, summary.equal_quality_interval)
    if summary.null_equal_quality_fraction is None:
        return known
    return f"{known}; {percent(summary.null_equal_quality_fraction)} against shuffled references"
