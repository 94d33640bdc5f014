"""The figure of controllers: share of the oracle's headroom captured without references."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import InputError, Run
from analysis.formatting import (
    FEW,
    counted,
    interval_label,
    interval_text,
    metric_label,
    per_token,
    percent,
    percent_range,
    plain,
)
from analysis.plots.layout import name_rows
from analysis.plots.source import Drawing, Panel, Source
from analysis.plots.style import BLUE, GREY, Look, look_of, percent_axis, thick

__all__ = ["controllers"]

MEASURES = ("full", "static", "oracle")
"""Reference controllers: they capture nothing or everything by definition, or have seen the references."""

WIDEST = (-1.5, 2.0)
"""Range of shares shown; shares beyond it are printed at the edge."""

_MARK: dict[str, Any] = {"markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.5}

ROW = 0.17
"""Height of a setting's row, in inches."""

ROWS = 36
"""Maximum number of settings listed; beyond it only each controller's best one is."""

_QUALITIES = ("executed_fraction", "quality", "static_quality", "oracle_quality")
_NUMBERS = (*_QUALITIES, "captured", "captured_low", "captured_high")


def controllers(source: Source) -> Drawing:
    """Quality of controllers against their executed fraction, between static allocations and the oracle at that budget.

    Numbers: the table of `oracle compare`, sorted by controller and fraction.
    """
    table = source.measured(_comparison, "oracle compare").sort_values(["controller", "executed_fraction", "setting"])
    table = table.reset_index(drop=True)
    looks = {name: look_of(2 + i) for i, name in enumerate(_tried(table)["controller"].unique())}
    shown = _shown(_tried(table))
    sequences = table.attrs.get("provenance", {}).get("sequences")  # earlier versions did not record it

    def draw_quality(axes: Axes) -> None:
        _draw_quality(axes, table, looks)
        axes.set_xlabel(f"mean fraction of {per_token(source.experiment.measure, 'run ')}")
        axes.set_ylabel(f"mean {metric_label(source.experiment.metric)}")

    finding, detail = _headline(table, sequences)
    panels = {"quality": Panel(draw=draw_quality, title="Quality", height=2.7)}
    if len(shown):
        height = max(2.7, 0.65 + ROW * len(shown))
        draw = partial(_draw_captured, shown=shown, looks=looks, interval=interval_label(sequences or FEW))
        panels["captured"] = Panel(draw=draw, title="Headroom captured", height=height, share=1.15)
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=_note(table, shown), columns=4)


def _tried(table: pd.DataFrame) -> pd.DataFrame:
    """The controllers in the proper sense: those that decide without references."""
    return table[~table["controller"].isin(MEASURES)]


_NOTE = "Intervals are not corrected: of forty settings one would seem to beat the static allocation by chance."
_ZERO_SHOT = (
    " unified and skipdecode are zero-shot: their published numbers are of models trained for them; below 2x, unified "
    "keeps the first layers and the last."
)
_BEST_ONLY = " On the right only each controller's best setting, which is selection; the numbers contain all settings."


def _note(table: pd.DataFrame, shown: pd.DataFrame) -> str:
    table = _tried(table)
    zero_shot = table["controller"].isin(["unified", "skipdecode"]).any()
    return (
        _NOTE
        + (_ZERO_SHOT if zero_shot else "")
        + ("" if len(shown) == table["captured"].notna().sum() else _BEST_ONLY)
    )


def _comparison(folder: Path) -> pd.DataFrame | None:
    run, name = Run.open(folder), "controllers/comparison"
    if not run.has(name):
        return None
    stored = run.read(name)
    table = stored.to_pandas()
    lacking = [column for column in ("controller", "setting", *_NUMBERS) if column not in table.columns]
    if lacking:
        raise InputError(f"'{folder}/{name}.parquet' has no {lacking[0]}: compare again with 'oracle compare {folder}'")
    table = table.astype(dict.fromkeys(_NUMBERS, float))
    table.attrs["provenance"] = json.loads((stored.schema.metadata or {}).get(b"provenance", b"{}"))
    return table


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The settings with headroom to capture, best first; of many, only each controller's best."""
    ordered = table.dropna(subset="captured").sort_values("captured", ascending=False, kind="stable")
    return ordered if len(ordered) <= ROWS else ordered.drop_duplicates("controller")


def _draw_quality(axes: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    bounds = table.sort_values("executed_fraction")
    x = bounds["executed_fraction"]
    axes.plot(x, bounds["oracle_quality"], color=BLUE, linewidth=thick(1.4), label="oracle at that budget")
    static: dict[str, Any] = {"color": GREY, "linestyle": (0, (6, 2))}
    axes.plot(x, bounds["static_quality"], label="best static allocation", **static)
    axes.fill_between(x, bounds["static_quality"], bounds["oracle_quality"], color=BLUE, alpha=0.07, linewidth=0)
    for name, rows in _tried(table).groupby("controller", sort=False):
        look = looks[str(name)].line(linewidth=thick(0.5), **_MARK)
        axes.plot(rows["executed_fraction"], rows["quality"], label=plain(name), **look)
    axes.set_xlim(0, 1.02)
    percent_axis(axes.xaxis)


def _draw_captured(axes: Axes, shown: pd.DataFrame, looks: dict[str, Look], interval: str) -> None:
    axes.axvline(0, color=GREY, linestyle=(0, (6, 2)), zorder=1)
    axes.axvline(1, color=BLUE, linewidth=thick(1.4), zorder=1)
    low = min(-0.05, np.nanmin(shown[["captured", "captured_low"]].to_numpy()))
    high = max(1.05, np.nanmax(shown[["captured", "captured_high"]].to_numpy()))
    left, right = axes.set_xlim(max(WIDEST[0], low - 0.05), min(WIDEST[1], high + 0.05))
    for place, row in enumerate(shown.to_dict("records")):
        if np.isfinite(row["captured_low"]):
            axes.hlines(place, row["captured_low"], row["captured_high"], color="#444444", linewidth=thick(0.6))
        if left <= row["captured"] <= right:
            axes.plot([row["captured"]], [place], **looks[row["controller"]].line(linestyle="none", **_MARK))
            continue
        side = "left" if row["captured"] < left else "right"
        box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.0}
        at: dict[str, Any] = {"va": "center", "ha": side, "fontsize": "small", "color": GREY, "bbox": box}
        axes.text(left if side == "left" else right, place, percent(row["captured"]), **at)
    names = shown["controller"].str.cat(shown["setting"].astype(str), sep=" ").str.strip()
    # Where there is little room, values without the names of their parameters.
    shorter = names.str.replace(r"(?<=[ ,])[\w.-]+=", "", regex=True)
    name_rows(axes, range(len(shown)), names.tolist(), shorter=shorter.tolist())
    axes.set_ylim(len(shown) - 0.4, -0.6)
    percent_axis(axes.xaxis)
    axes.set_xlabel(f"captured, {interval}")
    axes.grid(axis="y", visible=False)


def _headline(table: pd.DataFrame, sequences: int | None) -> tuple[str, str]:
    table = _tried(table)
    few = sequences is not None and sequences < FEW
    known = table.dropna(subset="captured")
    lacking = f" ({len(table) - len(known)} without headroom to capture)" if len(known) < len(table) else ""
    settings = f"{len(table)} setting{'' if len(table) == 1 else 's'}{lacking}"
    number = table["controller"].nunique()
    detail = f"{number} controller{'' if number == 1 else 's'}, {settings}"
    if sequences is not None:
        detail = f"{counted(sequences)}; {detail}"
    if table.empty:
        return "Only the full model, static allocations and the oracle were compared", detail
    if known.empty:
        return "The oracle has no headroom over static allocations here", detail
    best = known.sort_values("captured").to_dict("records")[-1]
    name = f"'{best['controller']} {best['setting']}'".replace(" '", "'")
    interval = (best["captured_low"], best["captured_high"])
    detail += f"; most captured by {name}: {percent(best['captured'])}"
    detail += f", {interval_text(sequences or FEW, percent_range(interval))}" if np.isfinite(interval[0]) else ""
    if few:
        return f"Too few sequences ({sequences}) to tell whether a controller beats the best static allocation", detail
    clear = int(known["captured_low"].gt(0).sum())
    if not clear:
        return "No controller clearly beats the best static allocation", detail
    return f"{clear} of {len(known)} settings clearly beat the best static allocation", detail
