"""The figure of the minimal budgets: their distribution over all sequences and by task, with proven bounds."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.experiment import Experiment
from analysis.formatting import FEW, basis, per_token, percent, percent_range, plain
from analysis.grouping import FloatArray
from analysis.plots.source import Drawn, Source
from analysis.plots.style import BLUE, GREY, VERMILLION, frame, percent_axis, styled
from analysis.stats import mean_interval
from analysis.summary import Summary

__all__ = ["minimal_budgets"]

HEADER = 0.36
"""Height of the header row above the tasks, in inches."""

SINGLE = 60
"""Maximum number of sequences of a task drawn as single marks; more are drawn as a band."""

_FOUND: dict[str, Any] = {"marker": "o", "color": BLUE}
_PROVEN: dict[str, Any] = {"marker": "D", "color": "black"}
_ZERO: dict[str, Any] = {"marker": "o", "color": GREY, "markerfacecolor": "white"}


@styled()
def minimal_budgets(source: Source) -> Drawn:
    """The distribution of the minimal budgets: over all, and per task every sequence between its bounds.

    Returns:
        Numbers, one row per sequence, by task and budget: `task`, `sequence`, `lower` (proven) and `upper` (found) as
        fractions of the full model's cost, `certified`, `zero_quality`, `informative`; of the task `scored` (those
        that tell something), `mean` (of `upper` over these), `mean_low`, `mean_high` (95 % bootstrap interval).
    """
    experiment, summary = source.experiment, source.summary
    table = _numbers(experiment, summary)
    tasks = list(dict.fromkeys(experiment.sequences["task"]))
    tasks = tasks if len(tasks) > 1 else []
    rows = _row_heights(table, tasks)
    heights = [2.3, HEADER + sum(rows)][: 1 + bool(tasks)]
    figure = Figure(figsize=(7.6, 0.7 + sum(heights)))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    handles = _draw_distribution(panels[0], table, summary)
    if tasks:
        handles += _draw_tasks(panels[1], table, tasks, rows)
    panels[-1].set_xlabel(f"minimal budget, fraction of {per_token(experiment.measure)}")
    panels[-1].set_xlim(-0.02, 1.02)
    percent_axis(panels[-1].xaxis)
    told = source.told.summary
    known = basis(told.sequences, told.allocations_per_sequence, told.per_sequence_interval)
    finding = f"A sequence needs at most {percent(told.per_sequence_fraction)} of the {experiment.measure}"
    detail = f"{known}; proven minimal: {told.certified}{source.beside}"
    frame(figure, f"{finding} on average", detail, legend=handles, columns=2)
    return table, figure


def _numbers(experiment: Experiment, summary: Summary) -> pd.DataFrame:
    minimal = summary.minimal.merge(experiment.sequences[["sequence", "task"]], on="sequence", validate="one_to_one")
    minimal = minimal.assign(
        lower=minimal["lower"] / experiment.full_cost, upper=minimal["upper"] / experiment.full_cost
    )
    order = {task: place for place, task in enumerate(experiment.sequences["task"].unique())}
    minimal = minimal.assign(place=minimal["task"].map(order)).sort_values(["place", "upper", "lower"], kind="stable")
    resamples = 1000 if summary.per_sequence_interval else 0
    for task, rows in minimal[minimal["informative"]].groupby("task"):
        interval = mean_interval(rows["upper"].to_numpy(), resamples=resamples, seed=experiment.seed)
        values = [len(rows), rows["upper"].mean(), *(interval or (np.nan, np.nan))]
        minimal.loc[minimal["task"] == task, ["scored", "mean", "mean_low", "mean_high"]] = values
    columns = ["task", "sequence", "lower", "upper", "certified", "zero_quality", "informative"]
    table = minimal.reindex(columns=[*columns, "scored", "mean", "mean_low", "mean_high"]).reset_index(drop=True)
    return table.assign(scored=table["scored"].fillna(0).astype(int))


def _row_heights(table: pd.DataFrame, tasks: list[str]) -> list[float]:
    """Height of each task's row, in inches."""
    counts = table["task"].value_counts()
    return [float(np.clip(0.1 * counts[task], 0.3, 0.8)) for task in tasks]


def _steps(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of the values that are at most x, from x = 0 to 1, as a step curve."""
    x = np.concatenate([[0.0], np.sort(values), [1.0]])
    return x, np.append(np.arange(len(values) + 1), len(values)) / len(values)


def _draw_distribution(axes: Axes, table: pd.DataFrame, summary: Summary) -> list[Any]:
    upper, lower = table["upper"].to_numpy(), table["lower"].to_numpy()
    untold = ~table["informative"]
    found = axes.step(*_steps(upper), where="post", color=BLUE, linewidth=2.2, label="found")
    bound = axes.step(
        *_steps(lower), where="post", color=BLUE, linewidth=1.1, linestyle=(0, (4, 2)), label="not ruled out"
    )
    grid = np.unique(np.concatenate([[0.0, 1.0], upper, lower]))
    most, least = (np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in (lower, upper))
    axes.fill_between(grid, least, most, step="post", color=BLUE, alpha=0.12, linewidth=0)
    handles: list[Any] = [*found, *bound]
    if untold.any():
        label = f"tell nothing: every allocation qualifies ({int(untold.sum())})"
        look: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "//////", "linewidth": 0.0}
        handles.append(axes.axhspan(0, float(untold.mean()), label=label, zorder=0.6, **look))
    axes.set_ylim(0, 1.02)
    percent_axis(axes.yaxis, 0.2)
    axes.set_ylabel("sequences for\nwhich it suffices")
    return handles + _draw_means(axes, summary)


def _draw_means(axes: Axes, summary: Summary) -> list[Any]:
    told = summary.informative.per_sequence_fraction if summary.informative else None
    lines: list[tuple[float | None, str, Any, str]] = [
        (summary.per_sequence_fraction, "black", (0, (7, 1.5, 1, 1.5)), "mean found, all sequences"),
        (told, "black", (0, (4, 2)), "mean found, sequences that tell something"),
        (summary.null_per_sequence_fraction, VERMILLION, (0, (1, 1.2)), "mean against shuffled references"),
    ]
    return [
        axes.axvline(value, color=color, linestyle=dashes, linewidth=1.6, label=f"{label}: {percent(value)}")
        for value, color, dashes, label in lines
        if value is not None
    ]


def _draw_tasks(axes: Axes, table: pd.DataFrame, tasks: list[str], heights: list[float]) -> list[Any]:
    ends = np.cumsum([0.0, *heights])
    right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    ends_are = "95 %" if table["scored"].min() >= FEW else "bootstrap range"
    axes.text(1.03, -HEADER / 2, f"mean of those that tell\nsomething, {ends_are}", **right)
    for task, start, end in zip(tasks, ends, ends[1:], strict=False):
        rows = table[table["task"] == task]
        y = start + (end - start) * (0.1 + 0.8 * (np.arange(len(rows)) + 0.5) / len(rows))
        _draw_rows(axes, rows, y)
        axes.text(1.03, (start + end) / 2, _mean(rows), **right)
    axes.hlines(ends[:-1], -1, 2, color="#BBBBBB", linewidth=0.6)
    counts = table["task"].value_counts()
    axes.set_yticks((ends[:-1] + ends[1:]) / 2, [f"{plain(task)}  (n = {counts[task]})" for task in tasks])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(ends[-1], -HEADER)
    axes.grid(axis="y", visible=False)
    return _samples(table)


def _samples(table: pd.DataFrame) -> list[Any]:
    """Legend entries of single sequences."""
    handles = [Line2D([], [], linewidth=1.4, label="one sequence: from its lower bound to the best found", **_FOUND)]
    untold = ~table["informative"]
    proven = table["certified"] & ~untold
    for there, label, look in (
        (proven, "proven minimal", _PROVEN),
        (untold, "tells nothing", _ZERO),
    ):
        if there.any():
            handles.append(Line2D([], [], linestyle="none", label=f"one sequence: {label}", **look))
    for handle in handles:
        handle.set_markersize(4.5)
    return handles


def _draw_rows(axes: Axes, rows: pd.DataFrame, y: FloatArray) -> None:
    lower, upper = rows["lower"].to_numpy(), rows["upper"].to_numpy()
    zero, proven = ~rows["informative"].to_numpy(), rows["certified"].to_numpy()
    if len(rows) > SINGLE:
        axes.fill_betweenx(y, lower, upper, step="mid", color=BLUE, alpha=0.35, linewidth=0)
        axes.plot(upper, y, color=BLUE, linewidth=1.6, drawstyle="steps-mid")
        return
    axes.hlines(y, lower, upper, color=BLUE, linewidth=1.4, alpha=0.6)
    size = float(np.clip(24 / len(rows), 2.2, 4.5))
    for chosen, look in ((~zero & ~proven, _FOUND), (~zero & proven, _PROVEN), (zero, _ZERO)):
        if chosen.any():
            axes.plot(upper[chosen], y[chosen], linestyle="none", clip_on=False, **look, markersize=size)


def _mean(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    if not first["scored"]:
        return "none tells something"
    interval = (first["mean_low"], first["mean_high"])
    return percent(first["mean"]) + (f"  ({percent_range(interval)})" if np.isfinite(interval[0]) else "")
