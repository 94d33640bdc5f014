"""The figure of the luck curve: the fractions found against the number of allocations tried."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from analysis.curve import luck_curve
from analysis.load import Experiment
from analysis.style import BLUE, VERMILLION, caption, counted, headline, per_token, percent, percent_axis, styled
from analysis.summary import Summary

__all__ = ["luck_curve_panels"]

_PANELS = {"per_sequence": "Minimal budget per sequence", "equal_quality": "Oracle at equal mean quality"}

_ADAPTIVE = (
    "Where earlier results steered what was tried, the shuffled curve reads the same tries but is not the same\n"
    "search: it still tells what picking the best of these tries gives for free."
)


def luck_curve_panels(experiment: Experiment, summary: Summary) -> Figure:
    """Fractions found against the allocations tried, real and shuffled references, a panel each.

    Where earlier results steered what was tried, the shuffled curve reads the same tries but is not the same search;
    it still tells what picking the best of these tries gives for free.
    """
    permutations = len(summary.null.per_sequence_fractions) if summary.null else 0
    curve = luck_curve(experiment, bootstrap=1000 if summary.per_sequence_interval else 0, permutations=permutations)
    with styled():
        figure = Figure(figsize=(7.2, 4.8))
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, (name, title) in zip((left, right), _PANELS.items(), strict=True):
            _draw(axes, curve, name)
            axes.text(0.985, 0.985, title, transform=axes.transAxes, ha="right", va="top", fontweight="bold")
        left.set_ylabel(f"mean fraction of {per_token(experiment.measure)}")
        left.set_ylim(-0.015, 1.09)
        percent_axis(left.yaxis)
        headline(left, *_headline(curve, summary))
        # Legend and caption do not know of each other: the one is lifted, the other leaves lines free for it.
        legend: dict[str, Any] = {
            "loc": "outside lower center",
            "bbox_to_anchor": (0.5, 0.075 if summary.null else 0.0),
        }
        figure.legend(*left.get_legend_handles_labels(), ncols=3, columnspacing=2.5, **legend)
        if summary.null:
            caption(figure, f" \n \n{_ADAPTIVE}")
        return figure


def _draw(axes: Axes, curve: pd.DataFrame, name: str) -> None:
    tried, ends = curve["allocations"], (curve[f"{name}_low"], curve[f"{name}_high"])
    axes.plot(tried, curve[name], color=BLUE, linewidth=2.2, label="found", marker="o", markersize=3.5)
    if ends[0].notna().all():
        axes.fill_between(tried, *ends, color=BLUE, alpha=0.16, linewidth=0, label="95 % interval over sequences")
    if curve[f"null_{name}"].notna().all():
        look: dict[str, Any] = {"color": VERMILLION, "linestyle": (0, (1, 1.2)), "linewidth": 1.8}
        axes.plot(tried, curve[f"null_{name}"], label="against shuffled references", **look)
    axes.set_xscale("log")
    axes.set_xlim(0.93, 1.08 * max(2, tried.iloc[-1]))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("allocations tried per sequence")


def _headline(curve: pd.DataFrame, summary: Summary) -> tuple[str, str]:
    last = curve.iloc[-1]
    most = int(last["allocations"])
    if most == 1:
        return "Nothing but the full model was tried: every layer is needed", counted(summary.sequences)
    half = curve.iloc[int(np.searchsorted(curve["allocations"], round(most / 2)))]
    course = _course(half, last, "per_sequence")
    finding = f"From {half['allocations']:.0f} to {most} tries the mean minimal budget "
    finding += f"falls from {course}" if " to " in course else f"stays at {course}"
    detail = f"{counted(summary.sequences)}; data-set oracle {_course(half, last, 'equal_quality')}"
    if summary.null:
        detail += f"; minimal budget, shuffled references {_course(half, last, 'null_per_sequence')}"
    return finding, detail


def _course(half: pd.Series, last: pd.Series, name: str) -> str:
    before, after = percent(half[name]), percent(last[name])
    return after if before == after else f"{before} to {after}"
