"""The figure of the minimal budgets: how many sequences need how many layers."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.load import Experiment
from analysis.style import BLUE, GREY, VERMILLION, basis, counted, headline, per_token, percent, percent_axis, styled
from analysis.summary import Summary

__all__ = ["minimal_budgets_histogram"]

BARS = 32
"""Most bars of the histogram: deeper models get several layers to a bar."""


def minimal_budgets_histogram(experiment: Experiment, summary: Summary) -> Figure:
    """How many sequences need how many layers, those where the full model scores nothing apart."""
    layers = experiment.layers
    with styled():
        figure = Figure(figsize=(7.2, 4.4))
        axes = figure.add_subplot()
        _draw_bars(axes, experiment, summary)
        _draw_means(axes, summary)
        axes.set_xlabel(f"minimal budget found, fraction of {per_token(experiment.measure)}")
        axes.set_ylabel("sequences")
        axes.set_xlim(-0.75 / layers, 1 + 0.75 / layers)
        axes.grid(axis="x", visible=False)
        percent_axis(axes.xaxis)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        known = basis(summary.sequences, summary.allocations_per_sequence, summary.per_sequence_interval)
        share = percent(summary.per_sequence_fraction)
        finding = f"A sequence gets by with at most {share} of the {experiment.measure} on average"
        headline(axes, finding, f"{known}; proven minimal: {summary.certified_nonzero}")
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6, columnspacing=2.5)
        return figure


def _draw_bars(axes: Axes, experiment: Experiment, summary: Summary) -> None:
    layers, zero = experiment.layers, summary.minimal["zero_quality"].to_numpy()
    # In mean layers beyond what every allocation costs, to the nearest.
    overhead, layer = experiment.overhead, (experiment.full_cost - experiment.overhead) / layers
    upper = np.rint((summary.minimal["upper"].to_numpy() - overhead) / layer)
    per_bar = -(-(layers + 1) // BARS)
    edges = np.arange(0, layers + 1 + per_bar, per_bar)
    counts, zero_counts = np.histogram(upper[~zero], edges)[0], np.histogram(upper[zero], edges)[0]
    left = (overhead + (edges[:-1] - 0.46) * layer) / experiment.full_cost
    width = (per_bar - 0.08) * layer / experiment.full_cost
    look: dict[str, Any] = {"width": width, "align": "edge", "linewidth": 0.8}
    label = f"full model scores ({counted(int((~zero).sum()))})"
    axes.bar(left, counts, color=BLUE, edgecolor=BLUE, label=label, **look)
    if zero.any():
        look |= {"color": "white", "edgecolor": GREY, "hatch": "//////"}
        label = f"full model scores 0: any allocation will do ({int(zero.sum())})"
        axes.bar(left, zero_counts, bottom=counts, label=label, **look)
    axes.set_ylim(0, 1.08 * (counts + zero_counts).max())


def _draw_means(axes: Axes, summary: Summary) -> None:
    nonzero = summary.per_sequence_fraction_nonzero if summary.zero_quality_sequences else None
    lines: list[tuple[float | None, str, Any, str]] = [
        (summary.per_sequence_fraction, "black", "-", "mean, all sequences"),
        (nonzero, "black", (0, (4, 2)), "mean where the full model scores"),
        (summary.null_per_sequence_fraction, VERMILLION, (0, (1, 1.2)), "mean against shuffled references"),
    ]
    for value, color, dashes, label in lines:
        if value is not None:
            label = f"{label}: {percent(value)}"
            axes.axvline(value, color=color, linestyle=dashes, linewidth=1.6, label=label)
