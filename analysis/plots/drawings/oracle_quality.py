"""The figure of the data-set oracle: mean quality against the mean fraction of layers.

In shapes, X is the points of a curve.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment
from analysis.formatting import basis, counted, interval_label, metric_label, per_token, percent, plain
from analysis.luck.null_oracle import GRID
from analysis.per_sequence.policies import policy_curves
from analysis.plots.source import ORACLE, Drawing, Group, Panel, Source, comparable
from analysis.plots.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, look_of, percent_axis, thick
from analysis.summary import Summary, summarise

__all__ = ["oracle_quality", "oracle_quality_of_runs"]

POINTS = 1001
"""Maximum number of points drawn of the oracle's curve."""

_GRID = np.linspace(0, 1, 501)

_DASHED: Any = {"linestyle": (0, (6, 3)), "weight": 0.7}
_DOTTED: Any = {"linestyle": (0, (2, 2)), "weight": 0.55}

# Series in the order of the legend: label, colour, look.
_CURVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "oracle": ("oracle", BLUE, {"drawstyle": "steps-post", "weight": 1.4}),
    "full model": ("full model, all layers", "black", _DASHED),
    "equal quality": ("equal quality", BLUE, {"marker": "o", "markersize": 7, "linestyle": "none"}),
    "unified": ("unified skipping, zero-shot", ORANGE, {"linestyle": (0, (5, 1.5)), "marker": "s"}),
    "random": ("random skipping", GREEN, {"linestyle": (0, (1, 1.2)), "marker": "^"}),
    "early-exit": ("early exit", VERMILLION, {"linestyle": (0, (5, 1.5, 1, 1.5)), "marker": "D"}),
    "null oracle": ("null oracle (shuffled references)", GREY, {"weight": 0.7}),
    "full model, null": ("full model, shuffled", GREY, _DOTTED),
    "equal quality, null": (
        "equal quality, shuffled references",
        GREY,
        {"marker": "o", "markersize": 7, "markerfacecolor": "white", "linestyle": "none"},
    ),
}


def oracle_quality(source: Source) -> Drawing:
    """Mean quality against the mean fraction of layers: the oracle, its null control and fixed policies.

    Numbers: `series`, `fraction`, `quality` (means over sequences), `fraction_low`, `fraction_high` (95 % bootstrap
    interval of the equal-quality point).
    """
    told = source.told
    experiment, summary = told.experiment, told.summary
    table = _numbers(experiment, summary)

    def draw(axes: Axes) -> None:
        for name in _CURVES:
            if len(rows := table[table["series"] == name]):
                _draw(axes, name, rows, interval_label(summary.sequences))
        _label(axes, experiment, f"mean {metric_label(experiment.metric)}")

    less = f" less {experiment.tolerance:g}" if experiment.tolerance else ""
    needed = percent(summary.equal_quality_fraction)
    return Drawing(
        table=table,
        panels={"quality": Panel(draw=draw, height=2.9)},
        finding=f"An oracle keeps the full model's mean quality{less} with {needed} of the {experiment.measure}",
        detail=_detail(summary) + source.beside("equal_quality_fraction"),
        note=ORACLE,
    )


def oracle_quality_of_runs(groups: Sequence[Group]) -> Drawing:
    """The oracles of several runs on one axis, over the sequences that tell something in all of them.

    Numbers: `run`, `series` (`oracle`, `full model`, `equal quality`), `fraction`, `quality`, both means over the runs
    of one label; `repetitions`, their number; of several, the standard deviations `fraction_deviation` and
    `quality_deviation`; of one, `fraction_low` and `fraction_high`, the 95 % bootstrap interval over sequences. Under
    different criteria, qualities are over the full model's.
    """
    of_runs, groups = groups, comparable(groups, same=("measure",))
    first = groups[0].sources[0].experiment
    metrics = list(dict.fromkeys(source.experiment.metric for group in groups for source in group.sources))
    table = pd.concat([_of_group(group, relative=len(metrics) > 1) for group in groups], ignore_index=True)
    sequences = len(first.sequences)
    searched = dict.fromkeys(len(source.experiment.sequences) for group in of_runs for source in group.sources)
    share = "" if list(searched) == [sequences] else f" of {' and '.join(map(str, searched))}"

    def draw(axes: Axes) -> None:
        for place, group in enumerate(groups):
            _draw_group(axes, group, table[table["run"] == group.label], place)
        marks: dict[str, Any] = {"color": GREY, "linewidth": thick(0.7)}
        axes.plot([], [], label="full model", linestyle=(0, (6, 3)), **marks)
        hollow = {"markerfacecolor": "white", "markersize": 8, "linestyle": "none"}
        axes.plot([], [], label="equal quality (hollow)", marker="o", **{**marks, **hollow})
        quality = f"mean {metric_label(metrics[0])}" if len(metrics) == 1 else "mean quality, over the full model's"
        _label(axes, first, quality)

    points = table[table["series"] == "equal quality"]
    bars = "" if points["fraction_low"].isna().all() else f"; bars: {interval_label(sequences)}"
    needed = ", ".join(f"{percent(row['fraction'])} ({row['run']})" for row in points.to_dict("records"))
    return Drawing(
        table=table,
        panels={"quality": Panel(draw=draw, height=2.9)},
        finding=f"An oracle keeps each full model's mean quality with {needed} of the {first.measure}",
        detail=f"{counted(sequences)}{share} that tell something in every run{bars}{_repeated(groups)}",
        note=ORACLE,
    )


def _repeated(groups: Sequence[Group]) -> str:
    if all(len(group.sources) == 1 for group in groups):
        return ""
    return "; of several runs of one label the mean, shaded and bars: one standard deviation to either side"


def _of_group(group: Group, *, relative: bool) -> pd.DataFrame:
    """Mean curves of the runs of one label."""
    several = len(group.sources) > 1
    sums = [
        source.known or summarise(source.experiment, bootstrap=0 if several else 1000, permutations=0)
        for source in group.sources
    ]
    scales = [summary.full_quality if relative else 1.0 for summary in sums]
    curves = [summary.oracle.frontier.quality_at(_GRID) / scale for summary, scale in zip(sums, scales, strict=True)]
    full = np.array([summary.full_quality / scale for summary, scale in zip(sums, scales, strict=True)])
    tolerances = [source.experiment.tolerance / scale for source, scale in zip(group.sources, scales, strict=True)]
    points = np.array([summary.equal_quality_fraction for summary in sums])
    low, high = sums[0].equal_quality_interval or (np.nan, np.nan)

    def deviation(values: Any) -> Any:
        return np.std(values, axis=0, ddof=1) if several else np.nan

    series = [
        {
            "series": "oracle",
            "fraction": _GRID,
            "quality": np.mean(curves, axis=0),
            "quality_deviation": deviation(curves),
        },
        {"series": "full model", "fraction": [0.0, 1.0], "quality": full.mean(), "quality_deviation": deviation(full)},
        {
            "series": "equal quality",
            "fraction": [points.mean()],
            "quality": (full - tolerances).mean(),
            "fraction_deviation": deviation(points),
            "fraction_low": np.nan if several else low,
            "fraction_high": np.nan if several else high,
        },
    ]
    columns = [
        "series",
        "fraction",
        "quality",
        "fraction_deviation",
        "quality_deviation",
        "fraction_low",
        "fraction_high",
    ]
    table = pd.concat([pd.DataFrame(one).reindex(columns=columns) for one in series], ignore_index=True)
    numbers = table.columns[1:]
    table[numbers] = table[numbers].astype(float)
    table.insert(0, "run", group.label)
    return table.assign(repetitions=len(group.sources))


def _draw_group(axes: Axes, group: Group, table: pd.DataFrame, place: int) -> None:
    look = look_of(place)
    oracle, full, point = (table[table["series"] == name] for name in ("oracle", "full model", "equal quality"))
    x, y = oracle["fraction"], oracle["quality"]
    runs = f" (mean of {len(group.sources)} runs)" if len(group.sources) > 1 else ""
    # Solid: dashes are those of the full models.
    curve: dict[str, Any] = {"marker": look.marker, "markevery": (4 * place, 60), "linewidth": thick(1.2)}
    axes.plot(x, y, label=plain(group.label) + runs, color=look.color, **curve)
    spread = oracle["quality_deviation"]
    if spread.notna().all():
        axes.fill_between(x, y - spread, y + spread, color=look.color, alpha=0.16, linewidth=0)
    axes.plot(full["fraction"], full["quality"], color=look.color, linestyle=(0, (6, 3)), linewidth=thick(0.6))
    [at] = point.to_dict("records")
    reach = (at["fraction"] - at["fraction_low"], at["fraction_high"] - at["fraction"])
    if np.isfinite(at["fraction_deviation"]):
        reach = (at["fraction_deviation"], at["fraction_deviation"])
    ends = np.clip([[reach[0]], [reach[1]]], 0, None) if np.isfinite(reach[0]) else None
    axes.errorbar(
        [at["fraction"]],
        [at["quality"]],
        xerr=ends,
        color=look.color,
        marker=look.marker,
        markersize=8,
        markerfacecolor="white",
        elinewidth=thick(0.9),
        capsize=3,
        linestyle="none",
        zorder=5,
    )


def _label(axes: Axes, experiment: Experiment, quality: str) -> None:
    axes.set_xlabel(f"mean fraction of {per_token(experiment.measure, 'run ')}")
    axes.set_ylabel(quality)
    axes.set_xlim(-0.012, 1.012)
    percent_axis(axes.xaxis)


def _numbers(experiment: Experiment, summary: Summary) -> pd.DataFrame:
    frontier, null, ends = summary.oracle.frontier, summary.null, [0.0, 1.0]
    fraction_X = np.append(frontier.fraction, 1.0) if len(frontier.fraction) < POINTS else np.linspace(0, 1, POINTS)
    curves = policy_curves(experiment)
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


def _draw(axes: Axes, name: str, rows: pd.DataFrame, interval: str) -> None:
    label, color, look = _CURVES[name]
    look = {"color": color, **look}
    look["linewidth"] = thick(look.pop("weight", 0.9))
    x, y = rows["fraction"].to_numpy(), rows["quality"].to_numpy()
    if name == "equal quality":
        look |= {"markeredgecolor": "white", "zorder": 5}
        [low], [high] = rows["fraction_low"], rows["fraction_high"]
        if np.isfinite(low):
            reach = np.clip([[x[0] - low], [high - x[0]]], 0, None)
            look |= {"xerr": reach, "elinewidth": thick(1.1), "capsize": 3, "label": f"{label}, {interval}"}
        axes.errorbar(x, y, **{"label": label, **look})
        return
    axes.plot(x, y, label=label, markevery=max(1, len(x) // 10), **look)


def _detail(summary: Summary) -> str:
    known = basis(summary.sequences, summary.allocations_per_sequence, summary.equal_quality_interval)
    if summary.null_equal_quality_fraction is None:
        return known
    return f"{known}; {percent(summary.null_equal_quality_fraction)} against shuffled references"
