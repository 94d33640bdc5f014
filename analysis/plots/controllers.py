"""The figure of controllers: share of the oracle's headroom captured without references."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.experiment import InputError, Run
from analysis.formatting import metric_label, per_token, percent, percent_range, plain
from analysis.plots.source import Drawn, Source
from analysis.plots.style import BLUE, GREY, Look, frame, look_of, percent_axis, styled

__all__ = ["controllers"]

MEASURES = ("full", "static", "oracle")
"""Reference controllers: they capture nothing or everything by definition, or have seen the references."""

WIDEST = (-1.5, 2.0)
"""Range of shares shown; shares beyond it are printed at the edge."""

_MARK: dict[str, Any] = {"markersize": 6, "markeredgecolor": "black", "markeredgewidth": 0.5}

ROWS = 36
"""Maximum number of settings listed; beyond it only each controller's best one is."""

_QUALITIES = ("executed_fraction", "quality", "static_quality", "oracle_quality")
_NUMBERS = (*_QUALITIES, "captured", "captured_low", "captured_high")


@styled()
def controllers(source: Source) -> Drawn:
    """Quality of controllers against their executed fraction, between static allocations and the oracle at that budget.

    Returns:
        Numbers: the table of `oracle compare`, sorted by controller and fraction.
    """
    table = source.measured(_comparison, "oracle compare").sort_values(["controller", "executed_fraction", "setting"])
    table = table.reset_index(drop=True)
    looks = {name: look_of(2 + i) for i, name in enumerate(table["controller"].unique())}
    shown = _shown(table)
    figure = Figure(figsize=(7.8, max(3.4, 0.9 + 0.19 * len(shown))))
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_quality(left, table, looks)
    _draw_captured(right, shown, looks)
    left.set_xlabel(f"mean fraction of {per_token(source.experiment.measure, 'run ')}")
    left.set_ylabel(f"mean {metric_label(source.experiment.metric)}")
    handles = left.get_legend_handles_labels()[0]
    frame(
        figure,
        *_headline(table),
        legend=handles,
        columns=4,
        note=_NOTE + ("" if len(shown) == len(table) else _BEST_ONLY),
    )
    return table, figure


_NOTE = "Intervals are not corrected: of forty settings one would seem to beat the static allocation by chance."
_BEST_ONLY = " On the right only each controller's best setting, which is selection; the numbers contain all settings."


def _comparison(folder: Path) -> pd.DataFrame | None:
    run, name = Run.open(folder), "controllers/comparison"
    if not run.has(name):
        return None
    table = run.table(name)
    lacking = [column for column in ("controller", "setting", *_NUMBERS) if column not in table.columns]
    if lacking:
        raise InputError(f"'{folder}/{name}.parquet' has no {lacking[0]}: compare again with 'oracle compare {folder}'")
    return table.astype(dict.fromkeys(_NUMBERS, float))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.sort_values("captured", ascending=False, kind="stable", na_position="last")
    return ordered if len(ordered) <= ROWS else ordered.drop_duplicates("controller")


def _draw_quality(axes: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    bounds = table.sort_values("executed_fraction")
    x = bounds["executed_fraction"]
    axes.plot(x, bounds["oracle_quality"], color=BLUE, linewidth=2.2, label="oracle at that budget")
    static: dict[str, Any] = {"color": GREY, "linewidth": 1.6, "linestyle": (0, (6, 2))}
    axes.plot(x, bounds["static_quality"], label="best static allocation", **static)
    axes.fill_between(x, bounds["static_quality"], bounds["oracle_quality"], color=BLUE, alpha=0.07, linewidth=0)
    for name, rows in table.groupby("controller", sort=False):
        look = looks[str(name)].line(linewidth=0.8, **_MARK)
        axes.plot(rows["executed_fraction"], rows["quality"], label=plain(name), **look)
    axes.set_xlim(0, 1.02)
    percent_axis(axes.xaxis, 0.2)
    axes.set_title("Quality")


def _draw_captured(axes: Axes, shown: pd.DataFrame, looks: dict[str, Look]) -> None:
    for place, row in enumerate(shown.to_dict("records")):
        if not np.isfinite(row["captured"]):
            axes.text(0, place, "no headroom", va="center", ha="left", fontsize=8, color=GREY)
            continue
        if np.isfinite(row["captured_low"]):
            axes.hlines(place, row["captured_low"], row["captured_high"], color="#444444", linewidth=1.1)
        axes.plot([row["captured"]], [place], **looks[row["controller"]].line(linestyle="none", **_MARK))
    axes.axvline(0, color=GREY, linewidth=1.6, linestyle=(0, (6, 2)))
    axes.axvline(1, color=BLUE, linewidth=2.2)
    names = zip(shown["controller"], shown["setting"], strict=True)
    labels = [plain(f"{controller}  {setting}".strip()) for controller, setting in names]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    low = np.nanmin([-0.05, *shown["captured_low"], *shown["captured"]])
    high = np.nanmax([1.05, *shown["captured_high"], *shown["captured"]])
    left, right = axes.set_xlim(max(WIDEST[0], low - 0.05), min(WIDEST[1], high + 0.05))
    for place, share in enumerate(shown["captured"]):
        if np.isfinite(share) and not left <= share <= right:
            at, side = (left, "left") if share < left else (right, "right")
            axes.text(at, place, percent(share), va="center", ha=side, fontsize=8, color=GREY)
    percent_axis(axes.xaxis, 0.5)
    axes.set_xlabel("captured, 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.set_title("Share of the headroom")


def _headline(table: pd.DataFrame) -> tuple[str, str]:
    table = table[~table["controller"].isin(MEASURES)]
    known = table.dropna(subset="captured")
    detail = f"{table['controller'].nunique()} controllers, {len(table)} settings; "
    if known.empty:
        return "The oracle has no headroom over static allocations here", detail + "nothing to capture"
    best = known.sort_values("captured").to_dict("records")[-1]
    name = f"'{best['controller']} {best['setting']}'".replace(" '", "'")
    interval = (best["captured_low"], best["captured_high"])
    detail += f"most captured by {name}: {percent(best['captured'])}"
    detail += f", 95 % interval {percent_range(interval)}" if np.isfinite(interval[0]) else ""
    if not known["captured_low"].gt(0).any():
        return "No controller clearly beats the best static allocation", detail
    clear = int(known["captured_low"].gt(0).sum())
    return f"{clear} of {len(known)} settings clearly beat the best static allocation", detail
