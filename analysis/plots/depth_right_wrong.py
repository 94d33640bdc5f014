"""The figure of right and wrong samples: depth needed, and number of wrong ones that smaller allocations correct.

In shapes, X is the points of a curve.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.experiment import Experiment, InputError
from analysis.formatting import counted, metric_label, per_token, percent, percent_range
from analysis.grouping import FloatArray, IntArray
from analysis.luck.right_and_wrong import BAR, Depth, mended_after, right_and_wrong
from analysis.plots.source import Drawn, MissingError, Source
from analysis.plots.style import BLUE, GREY, VERMILLION, frame, log_axis, percent_axis, styled
from analysis.stats import ends

__all__ = ["depth_right_wrong"]

NULL = "wrong, null"

PERMUTATIONS = 10

STEPS = 80
"""Maximum number of steps of the curves over depth; one per layer for models with fewer layers."""

_HONEST = (
    "Wrong samples are corrected by choosing with the reference known, which no controller has. Null: the same outputs "
    "against the references of another sample of the same task; corrections there are luck."
)

_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "right": ("right samples that stay right", {"color": BLUE, "linewidth": 2.2}),
    "wrong": ("wrong samples corrected", {"color": VERMILLION, "linestyle": (0, (5, 1.5)), "linewidth": 2.0}),
    NULL: ("wrong samples, null", {"color": GREY, "linestyle": (0, (1, 1.2)), "linewidth": 1.8}),
}


@styled()
def depth_right_wrong(source: Source) -> Drawn:
    """Share of right and of wrong samples for which some tried allocation is right: by depth, and by tries.

    Returns:
        Numbers: `panel` (`depth`: x is the maximum cost as a fraction of the full model's; `tries`: x is the number of
        tries, drawn at random), `samples` (`right`, `wrong`, `wrong, null`), `n`, `x`, `share`; `low` and `high`, its
        95 % bootstrap interval over samples (none for the null).
    """
    experiment = source.experiment
    try:
        depth = right_and_wrong(experiment, permutations=PERMUTATIONS if source.summary.null else 0)
    except InputError as error:
        raise MissingError(str(error)) from error
    table = _numbers(depth, experiment)
    figure = Figure(figsize=(7.6, 3.6))
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, table[table["panel"] == "depth"])
    _draw(right, table[table["panel"] == "tries"])
    left.set_title("By depth, best of all tries")
    right.set_title("By number of tries, at any smaller depth")
    left.set_xlabel(f"at most this fraction of {per_token(experiment.measure)}")
    left.set_ylabel("samples that are right")
    left.set_xlim(-0.012, 1.012)
    percent_axis(left.xaxis, 0.2)
    left.set_ylim(-0.015, 1.03)
    percent_axis(left.yaxis)
    log_axis(right, depth.samples["tries"].max(), "tries, drawn at random")
    note = _HONEST
    if 0 < (count := depth.null["permutation"].nunique()) < PERMUTATIONS:
        note += f" The null of a run of this size is of {count} permutation{'s' if count > 1 else ''}."
    frame(figure, *_headline(table, experiment), legend=left.get_legend_handles_labels()[0], note=note)
    return table, figure


def _numbers(depth: Depth, experiment: Experiment) -> pd.DataFrame:
    parts = {
        "right": depth.samples[depth.samples["right"]],
        "wrong": depth.samples[~depth.samples["right"]],
        NULL: depth.null,
    }
    fraction_X = np.linspace(0, 1, min(experiment.layers, STEPS) + 1)
    most = max(1, int(depth.samples["tries"].max()))
    tries_X = np.unique(np.rint(np.geomspace(1, most, 24)).astype(np.int64))
    tables = []
    for name, rows in parts.items():
        if not len(rows):
            continue
        spent = rows["least"].fillna(np.inf).to_numpy(np.float64)[:, None] <= fraction_X + 1e-9
        tables.append(_curve("depth", name, rows, fraction_X, spent, experiment.seed))
        # For right samples the full model is always right.
        if name != "right":
            tables.append(_curve("tries", name, rows, tries_X, mended_after(rows, tries_X), experiment.seed))
    return pd.concat(tables, ignore_index=True)


def _curve(
    panel: str, name: str, rows: pd.DataFrame, x: FloatArray | IntArray, right_NX: Any, seed: int
) -> pd.DataFrame:
    n = rows["sequence"].nunique()
    found = ends(right_NX.T * 1.0, seed=seed, resamples=0 if name == NULL else 1000)
    values = {"n": n, "x": x, "share": right_NX.mean(axis=0), **found}
    return pd.DataFrame({"panel": panel, "samples": name, **values})


def _draw(axes: Axes, table: pd.DataFrame) -> None:
    for name, rows in table.groupby("samples", sort=False):
        label, look = _LOOKS[str(name)]
        steps = rows["panel"].iloc[0] == "depth"
        drawn = axes.plot(rows["x"], rows["share"], label=f"{label} (n = {rows['n'].iloc[0]})", **look)
        drawn[0].set_drawstyle("steps-post" if steps else "default")
        if rows["low"].notna().all():
            shade: dict[str, Any] = {"color": look["color"], "alpha": 0.14, "linewidth": 0}
            axes.fill_between(rows["x"], rows["low"], rows["high"], step="post" if steps else None, **shade)


def _headline(table: pd.DataFrame, experiment: Experiment) -> tuple[str, str]:
    n = table.drop_duplicates("samples").set_index("samples")["n"].to_dict()
    last = {str(row["samples"]): row for row in table[table["panel"] == "tries"].to_dict("records")}
    bar = metric_label(experiment.metric) + ("" if experiment.kind == "choice" else f" of at least {BAR:g}")
    right, wrong = n.get("right", 0), n.get("wrong", 0)
    detail = f"{counted(right + wrong)}, of which the full model gets {right} right ({bar})"
    if not wrong:
        return "The full model gets every sample right", detail
    finding = f"Smaller allocations correct {percent(last['wrong']['share'])} of the wrong samples"
    if NULL in last:
        finding += f" (null: {percent(last[NULL]['share'])})"
    interval = (last["wrong"]["low"], last["wrong"]["high"])
    if np.isfinite(interval[0]):
        detail += f"; corrected, 95 % interval {percent_range(interval)}"
    return finding, detail
