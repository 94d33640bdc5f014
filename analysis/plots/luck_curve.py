"""The figure of the luck curve: fractions found against the number of allocations tried."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.formatting import counted, per_token, percent
from analysis.luck.effort_curve import luck_curve as fractions_by_tries
from analysis.plots.source import Drawn, Source
from analysis.plots.style import BLUE, VERMILLION, frame, log_axis, percent_axis, styled
from analysis.summary import Summary

__all__ = ["luck_curve"]

_PANELS = {"per_sequence": "Minimal budget per sequence", "equal_quality": "Oracle at equal mean quality"}

_ADAPTIVE = (
    "If earlier results steered the search, the shuffled curve uses the same tries but is not the same search: it "
    "shows the effect of selecting the best of these tries."
)


@styled()
def luck_curve(source: Source) -> Drawn:
    """Fractions found against the allocations tried, real and shuffled references; numbers of `analysis.luck_curve`."""
    experiment, summary = source.told.experiment, source.told.summary
    permutations = len(summary.null.per_sequence_fractions) if summary.null else 0
    bootstrap = 1000 if summary.per_sequence_interval else 0
    curve = fractions_by_tries(experiment, bootstrap=bootstrap, permutations=permutations)
    figure = Figure(figsize=(7.2, 3.7))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip((left, right), _PANELS.items(), strict=True):
        _draw(axes, curve, name)
        axes.set_title(title)
    left.set_ylabel(f"mean fraction of {per_token(experiment.measure)}")
    left.set_ylim(-0.015, 1.03)
    percent_axis(left.yaxis)
    legend = left.get_legend_handles_labels()[0]
    frame(figure, *_headline(curve, summary), legend=legend, note=_ADAPTIVE if summary.null else "")
    return curve, figure


def _draw(axes: Axes, curve: pd.DataFrame, name: str) -> None:
    tried, ends = curve["allocations"], (curve[f"{name}_low"], curve[f"{name}_high"])
    axes.plot(tried, curve[name], color=BLUE, linewidth=2.2, label="found", marker="o", markersize=3.5)
    if ends[0].notna().all():
        axes.fill_between(tried, *ends, color=BLUE, alpha=0.16, linewidth=0, label="95 % interval over sequences")
    if curve[f"null_{name}"].notna().all():
        look: dict[str, Any] = {"color": VERMILLION, "linestyle": (0, (1, 1.2)), "linewidth": 1.8}
        axes.plot(tried, curve[f"null_{name}"], label="against shuffled references", **look)
    log_axis(axes, tried.iloc[-1], "allocations tried per sequence")


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
