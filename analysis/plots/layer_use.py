"""The figure of layer use: layers that the minimal allocations run, over all and by task."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binomtest

from analysis.experiment import Experiment
from analysis.formatting import counted, percent, plain
from analysis.per_sequence.layer_use import layer_use as use_by_task
from analysis.plots.source import Drawn, Source
from analysis.plots.style import BLUE, GREY, frame, styled
from analysis.summary import Summary

__all__ = ["layer_use"]

PROFILE, ROW = 1.45, 0.28
"""Heights of the profile and of a task's row, in inches."""


@styled()
def layer_use(source: Source) -> Drawn:
    """Share of the minimal allocations that use each layer: a profile over all, and a heat map with one row per task.

    Returns:
        Numbers: `task` (`all` last), `n` (sequences), `layer`, `share` of the minimal allocations that use it; `low`
        and `high`, its 95 % interval (Wilson's score).
    """
    experiment, summary = source.experiment, source.summary
    _ = source.told  # raises if there are none
    use = use_by_task(summary.minimal, experiment.sequences, experiment.layers)
    table, tasks = _numbers(use), use[:-1]
    heights = [PROFILE, ROW * len(tasks)][: 1 + bool(len(tasks))]
    figure = Figure(figsize=(7.6, 0.7 + sum(heights)))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_profile(panels[0], table[-experiment.layers :])
    if len(tasks):
        _draw_tasks(figure, panels[1], tasks)
    panels[-1].set_xlabel("layer" if experiment.unit == "layer" else "sublayer (even: attention, odd: MLP)")
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True))
    why = summary.told_nothing
    note = f"Left out: {summary.untold} of {counted(summary.sequences)}: {why}." if summary.untold else ""
    frame(figure, *_headline(table[-experiment.layers :], experiment, summary), note=note)
    return table, figure


def _numbers(use: pd.DataFrame) -> pd.DataFrame:
    layers = use.shape[1] - 1
    table = pd.DataFrame(
        {
            "task": np.repeat(use.index.to_numpy(object), layers),
            "n": np.repeat(use["n"].to_numpy(), layers),
            "layer": np.tile(np.arange(layers), len(use)),
            "share": use.drop(columns="n").to_numpy().ravel(),
        }
    )
    used = np.rint(table["share"].fillna(0) * table["n"]).astype(int)
    ends = [_wilson(k, n) for k, n in zip(used.tolist(), table["n"].tolist(), strict=True)]
    return table.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


def _wilson(used: int, n: int) -> tuple[float, float]:
    if not n:
        return np.nan, np.nan
    ends = binomtest(used, n).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)


def _draw_profile(axes: Axes, rows: pd.DataFrame) -> None:
    n = int(rows["n"].iloc[0])
    if n:
        low, high = rows["share"] - rows["low"], rows["high"] - rows["share"]
        bars: dict[str, Any] = {"width": 0.8, "color": BLUE, "alpha": 0.55, "edgecolor": BLUE}
        spread: dict[str, Any] = {"ecolor": "#333333", "error_kw": {"elinewidth": 0.9, "capsize": 1.5}}
        axes.bar(rows["layer"], rows["share"], yerr=[low.clip(0), high.clip(0)], **bars, **spread)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_ylabel(f"all tasks (n = {n}),\n95 % interval")
    axes.grid(axis="x", visible=False)


def _draw_tasks(figure: Figure, axes: Axes, tasks: pd.DataFrame) -> None:
    shares = tasks.drop(columns="n").to_numpy()
    image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="none")
    axes.set_facecolor("#F3F3F3")
    labels = [f"{plain(task)}  (n = {n})" for task, n in tasks["n"].items()]
    axes.set_yticks(range(len(tasks)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row in range(1, len(tasks)):
        axes.axhline(row - 0.5, color="white", linewidth=1.2)
    middle = (shares.shape[1] - 1) / 2
    for empty in np.flatnonzero(tasks["n"].to_numpy() == 0):
        axes.text(middle, float(empty), "no sequence tells something", ha="center", va="center", color=GREY)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=14, format=PercentFormatter(1.0, symbol=" %"))
    bar.set_label("minimal allocations\nthat use it")
    bar.ax.grid(visible=False)


def _headline(rows: pd.DataFrame, experiment: Experiment, summary: Summary) -> tuple[str, str]:
    told = summary.headline
    assert told is not None, "checked before"
    share = rows["share"].to_numpy()
    most, least = int(share.argmax()), int(share.argmin())
    of = "" if experiment.costs is None else f" of the {experiment.measure}"
    return (
        f"Minimal allocations use {experiment.unit} {most} most ({100 * share[most]:.0f} %), {experiment.unit} {least} "
        f"least ({100 * share[least]:.0f} %)",
        f"{counted(told.sequences)}, a minimal allocation each; mean minimal budget "
        f"{percent(told.per_sequence_fraction)}{of}",
    )
