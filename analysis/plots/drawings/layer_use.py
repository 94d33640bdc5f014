"""The figure of layer use: layers that the minimal allocations run, over all and by task."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from scipy.stats import binomtest

from analysis.experiment import Experiment
from analysis.formatting import FEW, counted, percent, share
from analysis.grouping import FloatArray
from analysis.per_sequence.layer_use import layer_use_of as use_by_task
from analysis.plots.layout import name_rows
from analysis.plots.source import Drawing, Panel, Source
from analysis.plots.style import BLUE, GREY, count_axis, percent_axis, thick
from analysis.summary import Summary

__all__ = ["layer_use"]

NAMED = 4
"""Maximum number of ranges of layers that a title names."""

ROW = 0.26
"""Height of a task's row, in inches."""


def layer_use(source: Source) -> Drawing:
    """Share of the minimal allocations that use each layer: a profile over all, and a heat map with one row per task.

    Of a task with at most `analysis.formatting.FEW` sequences the map has a line per sequence instead of a share.

    Numbers: `task` (`all` last), `n` (sequences), `layer`, `share` of the minimal allocations that use it; `low` and
    `high`, its 95 % interval (Wilson's score).
    """
    experiment, summary = source.experiment, source.summary
    _ = source.told  # raises if there are none
    use = use_by_task(summary.minimal, experiment.sequences, experiment.layers)
    table, tasks = _numbers(use), use[:-1]
    whole = table[-experiment.layers :]
    used = _used(summary.minimal, experiment)

    def draw_profile(axes: Axes) -> None:
        _draw_profile(axes, whole)
        _label(axes, experiment)

    def draw_tasks(axes: Axes) -> None:
        _draw_tasks(axes, tasks, used)
        _label(axes, experiment)

    panels = {"profile": Panel(draw=draw_profile, height=2.0)}
    notes = []
    if len(tasks):
        panels["tasks"] = Panel(draw=draw_tasks, height=0.6 + ROW * len(tasks))
        if tasks["n"].between(1, FEW).any():
            notes.append(f"Of a task with at most {FEW} sequences each line is one sequence: coloured layers run")
    if summary.untold:
        notes.append(f"Left out: {summary.untold} of {counted(summary.sequences)}: {summary.told_nothing}")
    finding, detail = _headline(whole, experiment, summary)
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=". ".join(notes))


def _label(axes: Axes, experiment: Experiment) -> None:
    axes.set_xlabel("layer" if experiment.unit == "layer" else "sublayer (even: attention, odd: MLP)")
    axes.set_xlim(-0.5, experiment.layers - 0.5)
    count_axis(axes.xaxis)


def _used(minimal: pd.DataFrame, experiment: Experiment) -> dict[str, FloatArray]:
    """By task, whether each minimal allocation of a sequence that tells something runs each layer (N L)."""
    told = minimal[minimal["informative"]].merge(experiment.sequences[["sequence", "task"]], on="sequence")
    layers = np.arange(experiment.layers)
    return {
        str(task): np.array([np.isin(layers, list(one)) for one in rows["allocation"]], dtype=np.float64)
        for task, rows in told.groupby("task")
    }


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
    axes.grid(axis="x", visible=False)
    if n <= FEW:
        axes.plot(rows["layer"], rows["share"] * n, color=BLUE, marker="o", linestyle="none", clip_on=False)
        axes.set_ylim(0, n)
        count_axis(axes.yaxis)
        axes.set_ylabel(f"sequences that use it, of {n}")
        return
    low, high = rows["share"] - rows["low"], rows["high"] - rows["share"]
    bars: dict[str, Any] = {"width": 0.8, "color": BLUE, "alpha": 0.55, "edgecolor": BLUE}
    spread: dict[str, Any] = {"ecolor": "#333333", "error_kw": {"elinewidth": thick(0.5), "capsize": 1.5}}
    axes.bar(rows["layer"], rows["share"], yerr=[low.clip(0), high.clip(0)], **bars, **spread)
    axes.set_ylim(0, 1.02)
    percent_axis(axes.yaxis)
    axes.set_ylabel("minimal allocations that use it")


def _draw_tasks(axes: Axes, tasks: pd.DataFrame, used: dict[str, FloatArray]) -> None:
    layers = tasks.shape[1] - 1
    colors = LinearSegmentedColormap.from_list("use", ["#EDEDED", to_hex(BLUE)])
    edges = np.arange(layers + 1) - 0.5
    shares = False
    for row, (task, values) in enumerate(zip(tasks.index, tasks.drop(columns="n").to_numpy(), strict=True)):
        n = int(tasks["n"].iloc[row])
        if not n:
            text = "no sequence tells something"
            axes.text((layers - 1) / 2, row, text, ha="center", va="center", color=GREY, fontsize="small")
            continue
        block = used[str(task)] if n <= FEW else values[None, :]
        shares |= n > FEW
        y = np.linspace(row - 0.44, row + 0.44, len(block) + 1)
        image = axes.pcolormesh(edges, y, block, cmap=colors, vmin=0, vmax=1, linewidth=0, rasterized=False)
        axes.hlines(y[1:-1], -0.5, layers - 0.5, color="white", linewidth=0.5)
    name_rows(axes, range(len(tasks)), [str(task) for task in tasks.index], [f" ({n})" for n in tasks["n"]])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if shares:
        figure = axes.get_figure()
        assert figure is not None, "drawn in a figure"
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=14)
        # Matplotlib makes a picture of a smooth bar, which PGF cannot hold.
        assert bar.solids is not None, "drawn with the bar"
        bar.solids.set_rasterized(False)
        bar.solids.set_edgecolor("face")
        percent_axis(bar.ax.yaxis)
        bar.set_label("share")
        bar.ax.grid(visible=False)


def _headline(rows: pd.DataFrame, experiment: Experiment, summary: Summary) -> tuple[str, str]:
    told = summary.headline
    assert told is not None, "checked before"
    of = "" if experiment.costs is None else f" of the {experiment.measure}"
    detail = (
        f"{counted(told.sequences)}, a minimal allocation each; mean minimal budget "
        f"{percent(told.per_sequence_fraction)}{of}{'' if told.sequences <= FEW else '; bars: 95 % intervals'}"
    )
    most, least = rows["share"].max(), rows["share"].min()
    n, unit = int(rows["n"].iloc[0]), experiment.unit
    if most == least:
        return f"Minimal allocations use every {unit} equally often ({share(most, n)})", detail
    if rows.loc[rows["share"] == most, "low"].max() <= rows.loc[rows["share"] == least, "high"].min():
        return f"No {unit} is clearly used more often than another ({share(least, n)} to {share(most, n)})", detail
    ends = [
        f"{_named(rows.loc[rows['share'] == value, 'layer'].tolist(), unit)} {word} ({share(value, n)})"
        for value, word in ((most, "most"), (least, "least"))
    ]
    return f"Minimal allocations use {ends[0]}, {ends[1]}", detail


def _named(layers: list[int], unit: str) -> str:
    """All layers of equal use, in ranges; their number if these are many."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    ends = [layer for layer in layers if layer + 1 not in layers]
    parts = [f"{a}" if a == b else f"{a}\N{EN DASH}{b}" for a, b in zip(starts, ends, strict=True)]
    if len(parts) > NAMED:
        return f"{len(layers)} {unit}s equally"
    several = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{unit}{'s' * (len(layers) > 1)} {several}"
