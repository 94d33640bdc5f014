"""One look for all figures, and saving them with where they come from."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from analysis.load import InputError

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "VERMILLION",
    "basis",
    "caption",
    "counted",
    "headline",
    "metric_label",
    "per_token",
    "percent",
    "percent_axis",
    "percent_range",
    "save_figure",
    "styled",
]

# Okabe and Ito's palette, told apart with any colour vision; line styles and markers tell them apart in grey.
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
    "xtick.color": "#444444",
    "xtick.labelcolor": "black",
    "xtick.labelsize": 9,
    "ytick.color": "#444444",
    "ytick.labelcolor": "black",
    "ytick.labelsize": 9,
}
"""Matplotlib settings, in force while a figure is built and while it is saved."""


def styled() -> AbstractContextManager[None]:
    """The style for the length of a `with` block; the caller's own settings come back after it."""
    return rc_context(STYLE)


_METRIC_LABELS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "exact match",
    "agreement": "agreement with the full model",
    "log_likelihood": "log-likelihood (nats/token)",
    "choice_accuracy": "choice accuracy",
}


def percent_axis(axis: Axis) -> None:
    """Labels an axis of fractions in per cent, a tick every tenth."""
    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis.set_major_locator(MultipleLocator(0.1))


def metric_label(metric: str) -> str:
    """How a metric is written in a figure, unit included."""
    return _METRIC_LABELS.get(metric, metric)


def per_token(measure: str, verb: str = "") -> str:
    """What a fraction is of, as an axis says it: counts are per generated token too, but do not say so themselves."""
    return measure if measure.endswith("/token") else f"{measure} {verb}per generated token"


def percent(fraction: float) -> str:
    """A fraction as text, such as `23.3 %`."""
    return f"{100 * fraction:.1f} %"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of fractions as text, such as `20.1-28.3 %`, with an en dash."""
    return f"{100 * interval[0]:.1f}\N{EN DASH}{100 * interval[1]:.1f} %"


def counted(sequences: int) -> str:
    """A number of sequences as text."""
    return f"{sequences} sequence{'' if sequences == 1 else 's'}"


def basis(sequences: int, allocations: float, interval: tuple[float, float] | None) -> str:
    """What a figure rests on, as text."""
    counts = f"{counted(sequences)}, {allocations:.5g} allocations each"
    return f"{counts}; 95 % interval {percent_range(interval)}" if interval else counts


def headline(axes: Axes, finding: str, detail: str) -> None:
    """Titles a figure with what it shows, and under that with what it rests on."""
    axes.set_title(" \n ", fontsize=12)  # keeps room free: the texts start at the figure's edge, not the axes'
    for text, height, look in (
        (finding, 23, {"fontsize": 11, "fontweight": "bold"}),
        (detail, 8, {"color": "#333333"}),
    ):
        axes.annotate(
            text,
            (0.012, 1),
            xytext=(0, height),
            xycoords=("figure fraction", "axes fraction"),
            textcoords="offset points",
            in_layout=False,
            **look,
        )


def caption(figure: Figure, text: str) -> None:
    """A line under the figure."""
    figure.supxlabel(text, x=0.012, ha="left", fontsize=8.5, color="#333333")


def save_figure(figure: Figure, path: Path | str, provenance: Mapping[str, Any]) -> list[Path]:
    """Writes a figure as PNG (150 dpi) and PDF; equal figures give equal bytes.

    Args:
        figure: what to save.
        path: without suffix; missing folders are made.
        provenance: written into both files as JSON (PNG: `Description`, PDF: `Keywords`).

    Returns:
        The two files.

    Raises:
        InputError: if they cannot be written there.
    """
    target = Path(path)
    png, pdf = target.with_name(f"{target.name}.png"), target.with_name(f"{target.name}.pdf")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _save(figure, png, pdf, json.dumps(provenance, sort_keys=True, default=str))
    except OSError as error:
        message = f"cannot write figures to '{target.parent}' ({error.strerror}); give another folder"
        raise InputError(message) from error
    return [png, pdf]


def _save(figure: Figure, png: Path, pdf: Path, origin: str) -> None:
    with styled():
        figure.savefig(png, dpi=150, metadata={"Software": "layer-oracle", "Description": origin})
        # Without a date the same figure gives the same bytes.
        figure.savefig(
            pdf,
            metadata={
                "Creator": "layer-oracle",
                "Producer": "matplotlib",
                "Keywords": origin,
                "CreationDate": None,
            },
        )
