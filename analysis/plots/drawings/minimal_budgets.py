"""The figure of the minimal budgets: their distribution over all sequences and by task, with proven bounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment
from analysis.formatting import FEW, basis, counted, per_token, percent, plain
from analysis.grouping import FloatArray
from analysis.per_sequence.savings import budgets, fractions
from analysis.plots.layout import name_rows
from analysis.plots.source import Drawing, Group, Panel, Source, comparable
from analysis.plots.style import BLUE, GREY, VERMILLION, ink, look_of, percent_axis, thick
from analysis.stats import mean_interval
from analysis.summary import Summary

__all__ = ["minimal_budgets", "minimal_budgets_of_runs"]

SINGLE = 60
"""Maximum number of sequences of a task drawn as single marks; more are drawn as a band."""

_FOUND: dict[str, Any] = {"marker": "o", "color": BLUE}
_PROVEN: dict[str, Any] = {"marker": "D", "color": "black"}
_ZERO: dict[str, Any] = {"marker": "o", "color": GREY, "markerfacecolor": "white"}


def minimal_budgets(source: Source) -> Drawing:
    """The distribution of the minimal budgets: over all, and per task every sequence between its bounds.

    Numbers, one row per sequence, by task and budget: `task`, `sequence`, `lower` (proven) and `upper` (found) as
    fractions of the full model's cost, `certified`, `zero_quality`, `informative`; of the task `scored` (those that
    tell something), `mean` (of `upper` over these), `mean_low`, `mean_high` (95 % bootstrap interval).
    """
    experiment, summary = source.experiment, source.summary
    table = _numbers(experiment, summary)
    tasks = list(dict.fromkeys(experiment.sequences["task"]))
    rows = _row_heights(table, tasks)
    few = len(table) <= FEW

    def draw_all(axes: Axes) -> None:
        (_draw_each if few else _draw_distribution)(axes, table)
        _draw_means(axes, summary)
        _label(axes, experiment)

    def draw_tasks(axes: Axes) -> None:
        _draw_tasks(axes, table, tasks, rows)
        _label(axes, experiment)

    panels = {"distribution": Panel(draw=draw_all, height=0.6 + 0.16 * len(table) if few else 2.2)}
    if len(tasks) > 1:
        panels["tasks"] = Panel(draw=draw_tasks, height=0.5 + sum(rows))
    told = source.told.summary
    needed = percent(told.per_sequence_fraction)
    known = basis(told.sequences, told.allocations_per_sequence, told.per_sequence_interval)
    return Drawing(
        table=table,
        panels=panels,
        finding=f"A sequence needs at most {needed} of the {experiment.measure} on average",
        detail=f"{known}; proven minimal: {told.certified}{source.beside('per_sequence_fraction')}",
        note="Mean of a task: of its sequences that tell something" if len(tasks) > 1 else "",
        columns=2,
    )


def minimal_budgets_of_runs(groups: Sequence[Group]) -> Drawing:
    """The distributions of several runs on one axis, over the sequences that tell something in all of them.

    Numbers: `run`, `fraction`, `share` of the sequences for which that fraction suffices, mean over the runs of one
    label; `deviation`, its standard deviation over several; `mean`, of the minimal budgets.
    """
    groups = comparable(groups, same=("measure",))
    first = groups[0].sources[0].experiment
    sequences = len(first.sequences)
    found = {
        group.label: [np.asarray(fractions(budgets(one.experiment), one.experiment.full_cost)) for one in group.sources]
        for group in groups
    }
    table = pd.concat([_shares(label, runs) for label, runs in found.items()], ignore_index=True)

    def draw(axes: Axes) -> None:
        for place, (label, rows) in enumerate(table.groupby("run", sort=False)):
            look = look_of(place)
            text = f"{plain(label)}: mean {percent(rows['mean'].iloc[0])}"
            if sequences <= FEW:
                y = place + 0.6 * (np.arange(sequences) + 0.5) / sequences - 0.3
                for run in found[str(label)]:
                    axes.plot(np.sort(run), y, label=text, **look.line(linestyle="none"))
                continue
            axes.plot(
                rows["fraction"],
                rows["share"],
                label=text,
                color=look.color,
                linestyle=look.dashes,
                drawstyle="steps-post",
            )
            if rows["deviation"].notna().all():
                ends = rows["share"] - rows["deviation"], rows["share"] + rows["deviation"]
                axes.fill_between(rows["fraction"], *ends, step="post", color=look.color, alpha=0.16, linewidth=0)
        if sequences <= FEW:
            name_rows(axes, range(len(found)), list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
        else:
            axes.set_ylim(0, 1.02)
            percent_axis(axes.yaxis)
            axes.set_ylabel("sequences for which it suffices")
        _label(axes, first)

    repeated = any(len(group.sources) > 1 for group in groups)
    rows = table.drop_duplicates("run").to_dict("records")
    means = ", ".join(f"{percent(row['mean'])} ({row['run']})" for row in rows)
    return Drawing(
        table=table,
        panels={"distribution": Panel(draw=draw, height=0.8 + 0.5 * len(found) if sequences <= FEW else 2.6)},
        finding=f"Mean minimal budget: {means}",
        detail=f"{counted(sequences)} that tell something in every run",
        note="Of several runs of one label the mean; shaded: one standard deviation to either side" if repeated else "",
        columns=2,
    )


def _shares(label: str, runs: list[FloatArray]) -> pd.DataFrame:
    """Share of the sequences at each fraction at which it changes."""
    grid = np.unique(np.concatenate([[0.0, 1.0], *runs]))
    shares = [np.searchsorted(np.sort(run), grid, side="right") / len(run) for run in runs]
    spread = np.std(shares, axis=0, ddof=1) if len(runs) > 1 else np.nan
    numbers = {"share": np.mean(shares, axis=0), "deviation": spread, "mean": np.mean(runs)}
    return pd.DataFrame({"run": label, "fraction": grid, **numbers})


def _label(axes: Axes, experiment: Experiment) -> None:
    axes.set_xlabel(f"minimal budget, fraction of {per_token(experiment.measure)}")
    axes.set_xlim(-0.02, 1.02)
    percent_axis(axes.xaxis)


def _ends(table: pd.DataFrame) -> str:
    """What the ends of the intervals of the tasks are called."""
    return "95 % interval" if table["scored"].min() >= FEW else "bootstrap range"


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


def _draw_distribution(axes: Axes, table: pd.DataFrame) -> None:
    upper, lower = table["upper"].to_numpy(), table["lower"].to_numpy()
    untold = ~table["informative"]
    axes.step(*_steps(upper), where="post", color=BLUE, linewidth=thick(1.4), label="found")
    dashes: dict[str, Any] = {"linewidth": thick(0.7), "linestyle": (0, (4, 2))}
    axes.step(*_steps(lower), where="post", color=BLUE, label="not ruled out", **dashes)
    grid = np.unique(np.concatenate([[0.0, 1.0], upper, lower]))
    most, least = (np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in (lower, upper))
    axes.fill_between(grid, least, most, step="post", color=BLUE, alpha=0.12, linewidth=0)
    if untold.any():
        label = f"tell nothing ({int(untold.sum())})"
        look: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "//////", "linewidth": 0.0}
        axes.axhspan(0, float(untold.mean()), label=label, zorder=0.6, **look)
    axes.set_ylim(0, 1.02)
    percent_axis(axes.yaxis)
    axes.set_ylabel("sequences for which it suffices")


def _draw_each(axes: Axes, table: pd.DataFrame) -> None:
    """Few sequences, one row each."""
    rows = table.sort_values("upper", kind="stable")
    y = np.arange(len(rows), dtype=np.float64)
    _draw_rows(axes, rows, y)
    name_rows(axes, y.tolist(), rows["sequence"].tolist())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _draw_means(axes: Axes, summary: Summary) -> None:
    told = summary.informative.per_sequence_fraction if summary.informative else None
    lines: list[tuple[float | None, str, Any, str]] = [
        (summary.per_sequence_fraction, ink(), (0, (7, 1.5, 1, 1.5)), "mean of all"),
        (told, ink(), (0, (4, 2)), "mean of those that tell something"),
        (
            (summary.headline or summary).null_per_sequence_fraction,
            VERMILLION,
            (0, (1, 1.2)),
            "mean, shuffled references",
        ),
    ]
    for value, color, dashes, label in lines:
        if value is not None:
            axes.axvline(value, color=color, linestyle=dashes, label=f"{label}: {percent(value)}")


def _draw_tasks(axes: Axes, table: pd.DataFrame, tasks: list[str], heights: list[float]) -> None:
    ends = np.cumsum([0.0, *heights])
    label = "mean of a task" + (f", {_ends(table)}" if table["mean_low"].notna().any() else "")
    for task, start, end in zip(tasks, ends, ends[1:], strict=False):
        rows = table[table["task"] == task]
        y = start + (end - start) * (0.1 + 0.72 * (np.arange(len(rows)) + 0.5) / len(rows))
        _draw_rows(axes, rows, y)
        _draw_mean(axes, rows, end - 0.1 * (end - start), label)
    axes.hlines(ends[:-1], -1, 2, color="#BBBBBB", linewidth=0.6)
    counts = table["task"].value_counts()
    name_rows(axes, ((ends[:-1] + ends[1:]) / 2).tolist(), tasks, [f" ({counts[task]})" for task in tasks])
    axes.set_ylim(ends[-1], 0)
    axes.grid(axis="y", visible=False)


def _draw_mean(axes: Axes, rows: pd.DataFrame, y: float, label: str) -> None:
    """Mean of a task's sequences that tell something, with its interval."""
    first = rows.iloc[0]
    if not first["scored"]:
        return
    look: dict[str, Any] = {"color": ink(), "zorder": 4, "marker": "|", "markersize": 6, "markeredgewidth": thick(1)}
    mean, low, high = first[["mean", "mean_low", "mean_high"]].astype(float)
    if not np.isfinite(low):
        axes.plot([mean], [y], linestyle="none", label="_" if "," in label else label, **look)
        return
    errors = np.clip([[mean - low], [high - mean]], 0, None)
    axes.errorbar([mean], [y], xerr=errors, elinewidth=thick(0.6), linestyle="none", label=label, **look)


def _draw_rows(axes: Axes, rows: pd.DataFrame, y: FloatArray) -> None:
    lower, upper = rows["lower"].to_numpy(), rows["upper"].to_numpy()
    untold, proven = ~rows["informative"].to_numpy(), rows["certified"].to_numpy()
    if len(rows) > SINGLE:
        axes.fill_betweenx(y, lower, upper, step="mid", color=BLUE, alpha=0.35, linewidth=0)
        axes.plot(upper, y, color=BLUE, drawstyle="steps-mid")
        return
    axes.hlines(y, lower, upper, color=BLUE, linewidth=thick(0.9), alpha=0.6)
    size = float(np.clip(24 / len(rows), 2.2, 4.5))
    for chosen, look, label in (
        (~untold & ~proven, _FOUND, "a sequence, lower bound to found"),
        (~untold & proven, _PROVEN, "a sequence, proven minimal"),
        (untold, _ZERO, "a sequence that tells nothing"),
    ):
        if chosen.any():
            axes.plot(upper[chosen], y[chosen], linestyle="none", clip_on=False, label=label, **look, markersize=size)
