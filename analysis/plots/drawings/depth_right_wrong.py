"""The figure of right and wrong sequences: depth needed, and number of wrong ones that smaller allocations correct.

In shapes, X is the points of a curve.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment, InputError
from analysis.formatting import FEW, counted, metric_label, per_token, percent_range, share
from analysis.grouping import FloatArray, IntArray
from analysis.luck.right_and_wrong import BAR, Depth, mended_after, right_and_wrong
from analysis.plots.layout import name_rows
from analysis.plots.source import Drawing, MissingError, Panel, Source
from analysis.plots.style import BLUE, GREY, VERMILLION, log_axis, percent_axis, thick
from analysis.stats import ends

__all__ = ["depth_right_wrong"]

NULL = "wrong, null"

PERMUTATIONS = 10

STEPS = 80
"""Maximum number of steps of the curves over depth; one per layer for models with fewer layers."""

_HONEST = (
    "Wrong sequences are corrected by choosing with the reference known, which no controller has. Null: the same "
    "outputs against the references of another sequence of the same task; corrections there are luck."
)

_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "right": ("right sequences that stay right", {"color": BLUE, "weight": 1.4}),
    "wrong": ("wrong sequences corrected", {"color": VERMILLION, "linestyle": (0, (5, 1.5)), "weight": 1.2}),
    NULL: ("wrong sequences, null", {"color": GREY, "linestyle": (0, (1, 1.2)), "weight": 1.1}),
}


def depth_right_wrong(source: Source) -> Drawing:
    """Share of right and of wrong sequences for which some tried allocation is right: by depth, and by tries.

    Of at most `analysis.formatting.FEW` sequences each is shown by itself instead.

    Numbers: `panel` (`depth`: x is the maximum cost as a fraction of the full model's; `tries`: x is the number of
    tries, drawn at random), `samples` (`right`, `wrong`, `wrong, null`), `n`, `x`, `share`; `low` and `high`, its 95 %
    bootstrap interval over sequences (none for the null).
    """
    experiment = source.experiment
    try:
        depth = right_and_wrong(experiment, permutations=PERMUTATIONS if source.summary.null else 0)
    except InputError as error:
        raise MissingError(str(error)) from error
    table = _numbers(depth, experiment)
    few = len(depth.samples) <= FEW

    def draw_depth(axes: Axes) -> None:
        if few:
            _draw_samples(axes, depth)
        else:
            _draw(axes, table[table["panel"] == "depth"])
        axes.set_xlabel(f"at most this fraction of {per_token(experiment.measure)}")
        axes.set_xlim(-0.012, 1.012)
        percent_axis(axes.xaxis)

    def draw_tries(axes: Axes) -> None:
        if few:
            _draw_chances(axes, depth)
        else:
            _draw(axes, table[table["panel"] == "tries"])
        log_axis(axes, depth.samples["tries"].max(), "tries, drawn at random")

    note = _HONEST
    if 0 < (count := depth.null["permutation"].nunique()) < PERMUTATIONS:
        note += f" The null of a run of this size is of {count} permutation{'s' if count > 1 else ''}."
    finding, detail = _headline(table, experiment)
    panels = {
        "depth": Panel(draw=draw_depth, title="By depth, best of all tries", height=2.6),
        "tries": Panel(draw=draw_tries, title="By tries, at any smaller depth", height=2.6, share=1.0),
    }
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=note)


def _numbers(depth: Depth, experiment: Experiment) -> pd.DataFrame:
    parts = {
        "right": depth.samples[depth.samples["right"]],
        "wrong": depth.samples[~depth.samples["right"]],
        NULL: depth.null,
    }
    fraction_X = np.linspace(0, 1, min(experiment.layers, STEPS) + 1)
    tries_X = _tries(depth)
    tables = []
    for name, rows in parts.items():
        if not len(rows):
            continue
        spent = rows["least"].fillna(np.inf).to_numpy(np.float64)[:, None] <= fraction_X + 1e-9
        tables.append(_curve("depth", name, rows, fraction_X, spent, experiment.seed))
        # For right sequences the full model is always right.
        if name != "right":
            tables.append(_curve("tries", name, rows, tries_X, mended_after(rows, tries_X), experiment.seed))
    return pd.concat(tables, ignore_index=True)


def _curve(
    panel: str, name: str, rows: pd.DataFrame, x: FloatArray | IntArray, right_NX: Any, seed: int
) -> pd.DataFrame:
    # Of the null a sequence has as many rows as permutations that say something; each sequence counts once.
    right_SX = pd.DataFrame(right_NX * 1.0).groupby(rows["sequence"].to_numpy(), sort=False).mean().to_numpy()
    found = ends(right_SX.T, seed=seed, resamples=0 if name == NULL else 1000)
    values = {"n": len(right_SX), "x": x, "share": right_SX.mean(axis=0), **found}
    return pd.DataFrame({"panel": panel, "samples": name, **values})


def _draw(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_ylabel("sequences that are right")
    axes.set_ylim(-0.015, 1.03)
    percent_axis(axes.yaxis)
    for name, rows in table.groupby("samples", sort=False):
        label, look = _LOOKS[str(name)]
        look = {key: value for key, value in look.items() if key != "weight"} | {"linewidth": thick(look["weight"])}
        steps = rows["panel"].iloc[0] == "depth"
        drawn = axes.plot(rows["x"], rows["share"], label=f"{label} (n = {rows['n'].iloc[0]})", **look)
        drawn[0].set_drawstyle("steps-post" if steps else "default")
        if rows["low"].notna().all():
            shade: dict[str, Any] = {"color": look["color"], "alpha": 0.14, "linewidth": 0}
            axes.fill_between(rows["x"], rows["low"], rows["high"], step="post" if steps else None, **shade)


def _draw_samples(axes: Axes, depth: Depth) -> None:
    """Few sequences, one row each: a point at the least depth at which it is right, a cross where it never is."""
    rows = depth.samples.sort_values(["right", "least"], ascending=[False, True], kind="stable")
    y = np.arange(len(rows), dtype=np.float64)
    for name, chosen in (("right", rows["right"].to_numpy()), ("wrong", ~rows["right"].to_numpy())):
        known = chosen & rows["least"].notna().to_numpy()
        label, look = _LOOKS[name]
        points: dict[str, Any] = {"color": look["color"], "linestyle": "none", "clip_on": False}
        if known.any():
            axes.plot(rows["least"][known], y[known], marker="o" if name == "right" else "s", label=label, **points)
        if (never := chosen & ~known).any():
            axes.plot(
                np.ones(never.sum()), y[never], marker="x", label=f"{name}, by no smaller allocation right", **points
            )
    name_rows(axes, y.tolist(), rows["sequence"].tolist())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _draw_chances(axes: Axes, depth: Depth) -> None:
    """Few wrong sequences, one line each: the chance that some of the tries corrects it."""
    wrong = depth.samples[~depth.samples["right"]]
    tries_X = _tries(depth)
    for chance_X in mended_after(wrong, tries_X) if len(wrong) else ():
        axes.plot(
            tries_X,
            chance_X,
            color=VERMILLION,
            linewidth=thick(0.7),
            marker="s",
            markersize=2.5,
            label="wrong sequence",
        )
    if not len(wrong):
        axes.text(0.5, 0.5, "no wrong sequence", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_ylabel("chance to be corrected")
    axes.set_ylim(-0.03, 1.03)


def _tries(depth: Depth) -> IntArray:
    most = max(1, int(depth.samples["tries"].max()))
    return np.unique(np.rint(np.geomspace(1, most, 24)).astype(np.int64))


def _headline(table: pd.DataFrame, experiment: Experiment) -> tuple[str, str]:
    n = table.drop_duplicates("samples").set_index("samples")["n"].to_dict()
    last = {str(row["samples"]): row for row in table[table["panel"] == "tries"].to_dict("records")}
    bar = metric_label(experiment.metric) + ("" if experiment.kind == "choice" else f" of at least {BAR:g}")
    right, wrong = n.get("right", 0), n.get("wrong", 0)
    detail = f"{counted(right + wrong)}, of which the full model gets {right} right ({bar})"
    if not wrong:
        return "The full model gets every sequence right", detail
    # Of few, no shares: a null of a fraction of a sequence is none either.
    of = "" if wrong <= FEW else " of the"
    finding = f"Smaller allocations correct {share(last['wrong']['share'], wrong)}{of} wrong sequences"
    if NULL in last:
        finding += f" (null: {share(last[NULL]['share'], wrong)})"
    interval = (last["wrong"]["low"], last["wrong"]["high"])
    if np.isfinite(interval[0]) and wrong > FEW:
        detail += f"; corrected, 95 % interval {percent_range(interval)}"
    return finding, detail
