"""The figure of throughput: measured gain of unified skipping, against the ideal gain if only layers took time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from analysis.experiment import Experiment
from analysis.formatting import counted, metric_label, percent
from analysis.measurements import throughput as measured_throughput
from analysis.plots.source import Drawn, MissingError, Source
from analysis.plots.style import frame, look_of, styled

__all__ = ["throughput"]

TIMES = "\N{MULTIPLICATION SIGN}"


@styled()
def throughput(source: Source) -> Drawn:
    """Unified skipping at several speed-ups and batch sizes: measured and ideal gain as bars, and the table.

    Returns:
        Numbers: `policy`, `speedup` (nominal), `batch`, `cost`, `fraction`, `tokens_per_second` (measured), `gain`
        (over the full model at the same batch), `ideal_gain` (1 / fraction), `quality`, `sequences`.
    """
    table = _numbers(source.measured(measured_throughput, "oracle measure"))
    # Measured by the criterion of the search, which may differ from the experiment's.
    metric = metric_label(source.experiment.provenance.get("config", {}).get("criterion", source.experiment.metric))
    batches, speeds = sorted(table["batch"].unique()), sorted(set(table["speedup"]) - {1})
    if not speeds:
        raise MissingError("nothing but the full model was measured: run `oracle measure` again")
    figure = Figure(figsize=(7.6, 3.5 + 0.22 * len(speeds)))
    top, bottom = figure.subplots(2, 1, height_ratios=[2.3, 0.24 * (len(speeds) + 3)])
    _draw_bars(top, table, speeds, batches)
    _draw_table(bottom, table, speeds, batches, metric)
    handles = top.get_legend_handles_labels()[0]
    frame(figure, *_headline(table, source.experiment, metric), legend=handles, columns=len(handles), note=_NOTE)
    return table, figure


_NOTE = (
    "Ideal: time is proportional to the layers run. The vocabulary head, the embedding and the fixed cost of a step "
    "remain, and weigh more with fewer layers."
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
    line: dict[str, Any] = {"color": "black", "linewidth": 1.6, "linestyle": (0, (4, 1.5))}
    axes.hlines(ideal, place - 0.46, place + 0.46, label="ideal", **line)
    axes.axhline(1, color="#444444", linewidth=0.8)
    axes.set_xlim(-0.6, len(speeds) - 0.4)
    axes.set_xticks(place, [f"unified {speed:g}{TIMES}\nideal {value:.2f}{TIMES}" for speed, value in ideal.items()])
    axes.set_ylabel("tokens per second, over the\nfull model at the same batch")
    axes.grid(axis="x", visible=False)


def _draw_table(axes: Axes, table: pd.DataFrame, speeds: list[float], batches: list[int], metric: str) -> None:
    axes.axis("off")
    rows = []
    for speed in (1, *speeds):
        part = table[table["speedup"] == speed].set_index("batch")
        first, rates = part.iloc[0], part["tokens_per_second"].reindex(batches)
        name = "full model" if speed == 1 else f"unified {speed:g}{TIMES}"
        rates_text = [f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}" for rate in rates]
        if speed > 1:
            gains = part["gain"].reindex(batches)
            rates_text = [f"{text}  ({gain:.2f}{TIMES})" for text, gain in zip(rates_text, gains, strict=True)]
        rows.append([name, percent(first["fraction"]), f"{first['quality']:.3f}", *rates_text])
    heads = ["", "kept", metric, *(f"batch {batch}" for batch in batches)]
    drawn = axes.table(
        cellText=rows, colLabels=heads, cellLoc="right", bbox=Bbox.from_bounds(0, 0, 1, 0.84), edges="horizontal"
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("#BBBBBB")
        if row == 0 or column == 0:
            cell.set_text_props(fontweight="bold" if row == 0 else "normal", ha="left" if column == 0 else "right")
    what = f"tokens per second, measured ({TIMES} full model)"
    axes.text(1, 0.88, what, ha="right", va="bottom", color="#333333", transform=axes.transAxes)


def _headline(table: pd.DataFrame, experiment: Experiment, metric: str) -> tuple[str, str]:
    fastest = table[table["speedup"] == table["speedup"].max()]
    low, high = fastest["gain"].min(), fastest["gain"].max()
    span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    first = fastest.iloc[0]
    full = table.loc[table["speedup"] == 1, "quality"].iloc[0]
    finding = f"A {first['ideal_gain']:.1f}-fold cut of the {experiment.measure} makes decoding {span} times as fast"
    qualities = f"{metric} {first['quality']:.3f} of {full:.3f}"
    return finding, f"{counted(int(first['sequences']))}, unified skipping at {first['speedup']:g}{TIMES}: {qualities}"
