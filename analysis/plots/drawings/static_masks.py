"""The figure of static masks: quality of one mask for all sequences at each budget, and the layers that it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from analysis.experiment import Experiment
from analysis.formatting import metric_label, per_token, percent
from analysis.measurements import static_masks as stored_masks
from analysis.plots.layout import name_rows
from analysis.plots.source import Drawing, MissingError, Panel, Source
from analysis.plots.style import BLUE, GREY, count_axis, look_of, percent_axis, thick

__all__ = ["static_masks"]

TIMES = "\N{MULTIPLICATION SIGN}"

_LABELS = {"unified": "unified, zero-shot"}

OBJECTIVES = {"kl": "the KL divergence from the full model", "quality": "mean quality"}


def static_masks(source: Source) -> Drawing:
    """KL divergence and quality on held-out sequences against the budget, per method, and strips of the chosen masks.

    Numbers: the rows of `analysis.measurements.static_masks` of the table with most budgets, allocations as text.
    """
    table = source.measured(_fullest, "oracle static")
    units = _units(source, table)
    chosen = table[table["chosen"]].drop_duplicates("budget")
    experiment = source.experiment

    def draw_divergence(axes: Axes) -> None:
        _draw_curve(axes, table, "kl", experiment)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("nats per token")

    def draw_quality(axes: Axes) -> None:
        _draw_curve(axes, table, "quality", experiment)
        axes.axhline(table["full_quality"].iloc[0], color=GREY, linestyle=(0, (6, 2)), label="full model")
        axes.set_ylabel(f"mean {metric_label(_metric(table, source))}")

    panels = {
        "divergence": Panel(draw=draw_divergence, title="KL divergence from the full model", height=2.6),
        "quality": Panel(draw=draw_quality, title="Quality", height=2.6, share=1.0),
        "masks": Panel(
            draw=lambda axes: _draw_strips(axes, chosen, units, experiment),
            title="Chosen masks",
            height=0.75 + 0.24 * len(chosen),
        ),
    }
    finding, detail = _headline(table, chosen, source)
    numbers = table.assign(allocation=[" ".join(map(str, mask)) for mask in table["allocation"]])
    return Drawing(table=numbers, panels=panels, finding=finding, detail=detail, note=_note(table), columns=4)


def _fullest(folder: Path) -> pd.DataFrame | None:
    """The rows of the table with most budgets: others may have another split or objective."""
    table = stored_masks(folder)
    if table is None:
        return None
    names = table.drop_duplicates("budget")["table"].value_counts()
    most = sorted(names.index, key=lambda name: (-names[name], name))[0]
    return table[table["table"] == most].reset_index(drop=True)


def _units(source: Source, table: pd.DataFrame) -> int:
    units = source.experiment.layers
    if any(not 0 <= unit < units for mask in table["allocation"] for unit in mask):
        raise MissingError(f"the static masks name units that the model lacks: run `oracle static {source.name}` again")
    return units


def _metric(table: pd.DataFrame, source: Source) -> str:
    return str(table.attrs.get("provenance", {}).get("metric", source.experiment.metric))


def _draw_curve(axes: Axes, table: pd.DataFrame, value: str, experiment: Experiment) -> None:
    methods = list(table["method"].unique())
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].sort_values("fraction")
        axes.plot(rows["fraction"], rows[value], label=_LABELS.get(str(method), str(method)), **look_of(i + 1).line())
    rows = table[table["chosen"]].drop_duplicates("budget").sort_values("fraction")
    known = rows[f"{value}_low"].notna()
    axes.vlines(
        rows["fraction"][known],
        rows[f"{value}_low"][known],
        rows[f"{value}_high"][known],
        color=BLUE,
        linewidth=thick(0.9),
    )
    look: dict[str, Any] = {"color": BLUE, "markersize": 9, "markerfacecolor": "none", "markeredgewidth": thick(0.9)}
    axes.plot(rows["fraction"], rows[value], marker="o", linestyle="none", label="chosen on the training part", **look)
    axes.set_xlim(table["fraction"].min() - 0.05, 1.02)
    percent_axis(axes.xaxis)
    axes.set_xlabel(f"fraction of {per_token(experiment.measure, 'run ')}")


def _draw_strips(axes: Axes, chosen: pd.DataFrame, units: int, experiment: Experiment) -> None:
    """One row per budget: the units that run, coloured."""
    for place, row in enumerate(chosen.to_dict("records")):
        runs = set(row["allocation"].tolist())
        for at in range(units):
            face = BLUE if at in runs else "#E4E4E4"
            axes.add_patch(Rectangle((at - 0.42, place - 0.36), 0.84, 0.72, facecolor=face, linewidth=0))
    axes.set_xlim(-0.6, units - 0.4)
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    labels = [_label(row, experiment.measure) for row in chosen.to_dict("records")]
    name_rows(axes, range(len(chosen)), labels)
    count_axis(axes.xaxis)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel(f"{experiment.unit}; coloured: it runs")


def _label(row: Mapping[Any, Any], measure: str) -> str:
    rate, full = row["tokens_per_second"], row["full_tokens_per_second"]
    speed = f", {rate / full:.2f}{TIMES}" if np.isfinite(rate) and np.isfinite(full) else ""
    return f"{row['cost']:.4g} {measure}{speed}"


def _headline(table: pd.DataFrame, chosen: pd.DataFrame, source: Source) -> tuple[str, str]:
    metric = metric_label(_metric(table, source))
    row = min(chosen.to_dict("records"), key=lambda one: abs(one["fraction"] - 1 / 1.5))
    finding = (
        f"One mask for all sequences: {percent(row['fraction'])} of the {source.experiment.measure} keep {metric} "
        f"{row['quality']:.2f} of the full model's {row['full_quality']:.2f}"
    )
    return finding, (
        f"{row['training_sequences']} training and {row['held_out_sequences']} held-out sequences; curves and 95 % "
        "intervals are of the held-out ones"
    )


def _note(table: pd.DataFrame) -> str:
    return (
        f"Chosen: the mask of best {OBJECTIVES[table['judge'].iloc[0]].removeprefix('the ')} on the training part. "
        "Intervals are over sequences, not over splits. Beside the strips: tokens per second at batch 1, measured, "
        "over the full model's."
    )
