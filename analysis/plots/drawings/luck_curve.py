"""The figure of the luck curve: fractions found against the number of allocations tried."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment
from analysis.formatting import FEW, counted, per_token, percent, plain
from analysis.luck.effort_curve import luck_curve as fractions_by_tries
from analysis.plots.source import ORACLE, Drawing, Group, Panel, Source, comparable
from analysis.plots.style import BLUE, VERMILLION, log_axis, look_of, percent_axis, thick
from analysis.summary import Summary

__all__ = ["luck_curve", "luck_curve_of_runs"]

_PANELS = {"per_sequence": "Minimal budget per sequence", "equal_quality": "Oracle at equal mean quality"}

_ADAPTIVE = (
    "If earlier results steered the search, the shuffled curve uses the same tries but is not the same search: it "
    "shows the effect of selecting the best of these tries."
)


def luck_curve(source: Source) -> Drawing:
    """Fractions found against the allocations tried, real and shuffled references; numbers of `analysis.luck_curve`."""
    experiment, summary = source.told.experiment, source.told.summary
    permutations = len(summary.null.per_sequence_fractions) if summary.null else 0
    bootstrap = 1000 if summary.per_sequence_interval else 0
    curve = fractions_by_tries(experiment, bootstrap=bootstrap, permutations=permutations)

    def draw(axes: Axes, name: str) -> None:
        _draw(axes, curve, name, summary.sequences)
        _label(axes, experiment, curve["allocations"].iloc[-1])

    finding, detail = _headline(curve, summary)
    panels = {
        name: Panel(draw=partial(draw, name=name), title=title, share=place)
        for place, (name, title) in enumerate(_PANELS.items())
    }
    note = f"{ORACLE}. {_ADAPTIVE}" if summary.null else ORACLE
    return Drawing(table=curve, panels=panels, finding=finding, detail=detail, note=note)


def luck_curve_of_runs(groups: Sequence[Group]) -> Drawing:
    """The curves of several runs on one axis, over the sequences that tell something in all of them.

    Numbers: `run`, `allocations`, `per_sequence` and `equal_quality` as in `analysis.luck_curve`, means over the runs
    of one label; of several also their standard deviations, `per_sequence_deviation` and `equal_quality_deviation`.
    """
    groups = comparable(groups, same=("measure",))
    first = groups[0].sources[0].experiment
    table = pd.concat([_of_group(group) for group in groups], ignore_index=True)

    def draw(axes: Axes, name: str) -> None:
        for place, group in enumerate(groups):
            rows, look = table[table["run"] == group.label], look_of(place)
            axes.plot(rows["allocations"], rows[name], label=plain(group.label), **look.line())
            spread = rows[f"{name}_deviation"]
            if spread.notna().all():
                ends = rows[name] - spread, rows[name] + spread
                axes.fill_between(rows["allocations"], *ends, color=look.color, alpha=0.16, linewidth=0)
        _label(axes, first, table["allocations"].max())

    last = table.drop_duplicates("run", keep="last")
    found = ", ".join(
        f"{percent(row['per_sequence'])} ({row['run']}, {row['allocations']} tries)" for row in last.to_dict("records")
    )
    repeated = any(len(group.sources) > 1 for group in groups)
    return Drawing(
        table=table,
        panels={
            name: Panel(draw=partial(draw, name=name), title=title, share=place)
            for place, (name, title) in enumerate(_PANELS.items())
        },
        finding=f"Mean minimal budget found: {found}",
        detail=f"{counted(len(first.sequences))} that tell something in every run",
        note="Of several runs of one label the mean; shaded: one standard deviation to either side" if repeated else "",
    )


def _of_group(group: Group) -> pd.DataFrame:
    """Mean curve of the runs of one label, at the numbers of tries of the first."""
    curves = [fractions_by_tries(source.experiment, bootstrap=0, permutations=0) for source in group.sources]
    most = min(int(curve["allocations"].iloc[-1]) for curve in curves)
    tried = curves[0].loc[curves[0]["allocations"] <= most, "allocations"].to_numpy()
    table = pd.DataFrame({"run": group.label, "allocations": tried})
    for name in _PANELS:
        # A fraction found holds until the next point.
        values = [
            curve[name].to_numpy()[np.searchsorted(curve["allocations"], tried, side="right") - 1] for curve in curves
        ]
        table[name] = np.mean(values, axis=0)
        table[f"{name}_deviation"] = np.std(values, axis=0, ddof=1) if len(values) > 1 else np.nan
    return table


def _draw(axes: Axes, curve: pd.DataFrame, name: str, sequences: int) -> None:
    tried, ends = curve["allocations"], (curve[f"{name}_low"], curve[f"{name}_high"])
    axes.plot(tried, curve[name], color=BLUE, linewidth=thick(1.4), label="found", marker="o")
    # A bootstrap of few sequences is no interval.
    if ends[0].notna().all() and sequences > FEW:
        label = "95 % interval over sequences"
        axes.fill_between(tried, *ends, color=BLUE, alpha=0.16, linewidth=0, label=label)
    if curve[f"null_{name}"].notna().all():
        look: dict[str, Any] = {"color": VERMILLION, "linestyle": (0, (1, 1.2))}
        axes.plot(tried, curve[f"null_{name}"], label="against shuffled references", **look)


def _label(axes: Axes, experiment: Experiment, most: float) -> None:
    log_axis(axes, most, "allocations tried per sequence")
    axes.set_ylabel(f"mean fraction of {per_token(experiment.measure)}")
    axes.set_ylim(-0.015, 1.03)
    percent_axis(axes.yaxis)


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
