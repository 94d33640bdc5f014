"""The figure of layer use: which layers the minimal allocations run, by task."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.grouping import FloatArray
from analysis.layers import layer_use
from analysis.load import Experiment
from analysis.savings import fractions
from analysis.style import GREY, caption, counted, headline, percent, styled
from analysis.summary import Summary

__all__ = ["layer_use_map"]


def layer_use_map(experiment: Experiment, summary: Summary) -> Figure:
    """Share of the minimal allocations that use each layer, a row per task and one over all."""
    table = layer_use(summary.minimal, experiment.sequences, experiment.layers)
    use_RL = table.drop(columns="n").to_numpy()
    with styled():
        figure = Figure(figsize=(7.6, 2.0 + 0.3 * len(table)))
        axes = figure.add_subplot()
        image = axes.imshow(use_RL, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="none")
        _label_rows(axes, table["n"].to_dict(), experiment.layers)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("layer" if experiment.unit == "layer" else "sublayer (even: attention, odd: MLP)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True))
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=18, format=PercentFormatter(1.0, symbol=" %"))
        bar.set_label("minimal allocations that use it")
        bar.ax.grid(visible=False)
        headline(axes, *_headline(use_RL[-1], experiment, summary))
        zero = summary.zero_quality_sequences
        if zero:
            why = "where the full model scores 0 and any allocation will do"
            caption(figure, f"Left out: {zero} of {counted(summary.sequences)}, {why}.")
        return figure


def _label_rows(axes: Axes, counts: dict[Any, int], layers: int) -> None:
    axes.set_facecolor("#F3F3F3")
    axes.axhline(len(counts) - 1.5, color="white", linewidth=4)
    # A task's name is untrusted text: without its markup and control characters.
    names = ["".join(char if char.isprintable() else " " for char in str(task)) for task in counts]
    labels = [f"{name}  (n = {n})" for name, n in zip(names, counts.values(), strict=True)]
    axes.set_yticks(range(len(counts)), labels, parse_math=False)
    axes.tick_params(axis="y", length=0)
    for row, n in enumerate(counts.values()):
        if not n:
            axes.text((layers - 1) / 2, row, "the full model scores 0", ha="center", va="center", color=GREY)


def _headline(use_L: FloatArray, experiment: Experiment, summary: Summary) -> tuple[str, str]:
    nonzero = fractions(summary.minimal, experiment.full_cost, nonzero=True)
    if not len(nonzero):
        return "The full model scores 0 everywhere: no layer is needed", counted(summary.sequences)
    most, least = int(np.argmax(use_L)), int(np.argmin(use_L))
    most_use, least_use = (f"{100 * use_L[layer]:.0f} %" for layer in (most, least))
    of = "" if experiment.costs is None else f" of the {experiment.measure}"
    budget = f"{percent(nonzero.mean())}{of}"
    return (
        f"Minimal allocations use layer {most} most ({most_use}), layer {least} least ({least_use})",
        f"{counted(len(nonzero))}, a minimal allocation each; mean minimal budget {budget}",
    )
