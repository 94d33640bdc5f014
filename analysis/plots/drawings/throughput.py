"""The figure of throughput: measured gain of unified skipping beside the ideal one, and quality of all policies."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.formatting import counted, metric_label
from analysis.measurements import throughput as measured_throughput
from analysis.plots.source import Drawing, MissingError, Panel, Source
from analysis.plots.style import ink, look_of, thick

__all__ = ["throughput"]

TIMES = "\N{MULTIPLICATION SIGN}"


KEPT = 0.95
"""Share of the full model's quality from which a title says that it is kept."""

POLICIES = {"unified": "unified skipping", "early-exit": "early exit", "skipdecode": "SkipDecode"}
"""Policy to its name in the legend."""


def throughput(source: Source) -> Drawing:
    """Unified skipping at several speed-ups and batch sizes: measured and ideal gain as bars, and all qualities.

    The qualities are also of early exit and SkipDecode, if they were measured. All are zero-shot.

    Numbers: `policy`, `speedup` (nominal), `batch`, `cost`, `fraction`, `tokens_per_second` (measured), `gain` (over
    the full model at the same batch), `ideal_gain` (1 / fraction), `quality`, `sequences`.
    """
    table = _numbers(source.measured(measured_throughput, "oracle measure"))
    # Measured by the criterion of the search, which may differ from the experiment's.
    metric = metric_label(source.experiment.provenance.get("config", {}).get("criterion", source.experiment.metric))
    unified = table[table["policy"].isin(["full", "unified"])]
    batches, speeds = sorted(table["batch"].unique()), sorted(set(unified["speedup"]) - {1})
    if not speeds:
        raise MissingError("unified skipping was not measured: run `oracle measure` again")
    finding, detail = _headline(unified, metric)
    panels = {
        "gain": Panel(draw=lambda axes: _draw_bars(axes, unified, speeds, batches), title="Speed, unified skipping"),
        "quality": Panel(draw=lambda axes: _draw_quality(axes, table, metric), title="Quality", share=0.8),
    }
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=_NOTE)


_NOTE = (
    "Zero-shot: the model is trained for none of these. Ideal: time is proportional to the layers run. The vocabulary "
    "head, the embedding and the fixed cost of a step remain, and weigh more with fewer layers."
)


def _numbers(measured: pd.DataFrame) -> pd.DataFrame:
    table = measured.sort_values(["speedup", "batch"], kind="stable", ignore_index=True)
    full = table[table["policy"] == "full"].set_index("batch")["tokens_per_second"]
    table["gain"] = table["tokens_per_second"] / table["batch"].map(full)
    table["ideal_gain"] = 1 / table["fraction"]
    columns = ["policy", "speedup", "batch", "cost", "fraction", "tokens_per_second", "gain", "ideal_gain"]
    table = table[[*columns, "quality", "sequences"]]
    table.attrs = dict(measured.attrs)
    return table


def _draw_bars(axes: Axes, table: pd.DataFrame, speeds: list[float], batches: list[int]) -> None:
    width = 0.8 / len(batches)
    place = np.arange(len(speeds))
    for i, batch in enumerate(batches):
        rows = table[table["batch"] == batch].set_index("speedup").reindex(speeds)
        look = look_of(i).bar()
        x = place + (i - (len(batches) - 1) / 2) * width
        axes.bar(x, rows["gain"], width=0.92 * width, label=f"measured, batch {batch}", **look)
    ideal = table[table["speedup"].isin(speeds)].groupby("speedup")["ideal_gain"].first()
    line: dict[str, Any] = {"color": ink(), "linestyle": (0, (4, 1.5))}
    axes.hlines(ideal, place - 0.46, place + 0.46, label="ideal", **line)
    axes.axhline(1, color=ink(), linewidth=thick(0.5))
    axes.set_xlim(-0.6, len(speeds) - 0.4)
    axes.set_xticks(place, [f"{speed:g}{TIMES}" for speed in ideal.index])
    axes.set_xlabel("nominal speed-up")
    axes.set_ylabel("tokens per second, over the full model at the same batch")
    axes.grid(axis="x", visible=False)


def _draw_quality(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    full = table.loc[table["policy"] == "full", "quality"].iloc[0]
    axes.axhline(full, color=ink(), linewidth=thick(0.7), linestyle=(0, (6, 3)), label="full model")
    for place, (policy, label) in enumerate(POLICIES.items()):
        rows = table[table["policy"] == policy].drop_duplicates("speedup").sort_values("speedup")
        if len(rows):
            axes.plot(rows["speedup"], rows["quality"], label=f"{label}, quality", **look_of(3 + place).line())
    speeds = sorted(set(table["speedup"]) - {1})
    axes.set_xticks(speeds, [f"{speed:g}{TIMES}" for speed in speeds])
    axes.set_xlabel("nominal speed-up")
    axes.set_ylabel(f"mean {metric}")
    axes.set_ylim(bottom=0)


def _headline(table: pd.DataFrame, metric: str) -> tuple[str, str]:
    """The fastest setting that keeps the quality; if none does, what the mildest one costs and gains."""
    full = float(table.loc[table["speedup"] == 1, "quality"].iloc[0])
    skipping = table[table["policy"] == "unified"]
    keeps = skipping[skipping["quality"] >= KEPT * full]
    chosen = (
        keeps[keeps["speedup"] == keeps["speedup"].max()]
        if len(keeps)
        else skipping[skipping["speedup"] == skipping["speedup"].min()]
    )
    low, high = chosen["gain"].min(), chosen["gain"].max()
    span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    first = chosen.iloc[0]
    batches = ", ".join(f"{batch:g}" for batch in sorted(table["batch"].unique()))
    qualities = f"{metric} {first['quality']:.3f} of {full:.3f}"
    decoding = f"at {first['speedup']:g}{TIMES} decoding is {span} times as fast"
    kept = (
        f"keeps the quality, and {decoding}: {qualities}"
        if len(keeps)
        else f"does not keep the quality: {decoding}, {qualities}"
    )
    return (
        f"Unified skipping {kept}",
        f"{counted(int(first['sequences']))}, zero-shot; batch {batches}",
    )
