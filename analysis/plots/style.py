"""The common style of all figures: colours, dashes, markers and hatches, and the text around the axes."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextToPath
from matplotlib.ticker import LogLocator, MultipleLocator, NullLocator, PercentFormatter, StrMethodFormatter

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LOOKS",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "Look",
    "frame",
    "log_axis",
    "look_of",
    "percent_axis",
    "styled",
]

# Okabe and Ito's palette, distinguishable with any colour vision; dashes, markers and hatches distinguish in grey.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#6E6E6E"

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
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
"""Matplotlib settings for building and saving a figure."""

EDGE = 7
"""Distance between a figure's edge and its text, in points."""

HANDLE, SPACE = 3.2, 2.2
"""Length of a legend's samples and the space between its columns, in multiples of its font size."""


@contextmanager
def styled() -> Iterator[None]:
    """The style, for a `with` block or as a decorator; the caller's settings are restored afterwards."""
    with rc_context(STYLE):
        yield


@dataclass(frozen=True, kw_only=True)
class Look:
    """Appearance of one series, distinguishable in colour and in grey."""

    color: str
    dashes: Any
    marker: str
    hatch: str

    def line(self, **more: Any) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "linestyle": self.dashes, "marker": self.marker, "markersize": 4.5, **more}

    def bar(self, **more: Any) -> dict[str, Any]:
        """Arguments of `Axes.bar`: filled without a hatch, on white with one."""
        face = "white" if self.hatch else self.color
        return {"facecolor": face, "edgecolor": self.color, "hatch": self.hatch, "linewidth": 1.0, **more}


_SOLID, _DASHED, _DOTTED, _MIXED = "-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5))

LOOKS = (
    Look(color=BLUE, dashes=_SOLID, marker="o", hatch=""),
    Look(color=VERMILLION, dashes=_DASHED, marker="s", hatch="////"),
    Look(color=GREEN, dashes=_DOTTED, marker="^", hatch="...."),
    Look(color=ORANGE, dashes=_MIXED, marker="D", hatch="xxxx"),
    Look(color=PURPLE, dashes=(0, (8, 2)), marker="v", hatch="----"),
    Look(color=SKY, dashes=(0, (3, 1, 1, 1, 1, 1)), marker="P", hatch="++++"),
    Look(color="black", dashes=(0, (2, 1)), marker="X", hatch="||||"),
    Look(color=GREY, dashes=(0, (8, 2, 1, 2)), marker="*", hatch="oooo"),
)


def look_of(series: int) -> Look:
    """The look of a series by its number; lines are distinct in grey up to 56 series, bars up to 8."""
    first, other = LOOKS[series % len(LOOKS)], LOOKS[(series + series // len(LOOKS)) % len(LOOKS)]
    return replace(first, dashes=other.dashes)


def percent_axis(axis: Axis, step: float = 0.1) -> None:
    """Labels an axis of fractions in per cent, with a tick per `step`."""
    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis.set_major_locator(MultipleLocator(step))


def log_axis(axes: Axes, most: float, label: str) -> None:
    """Makes the horizontal axis logarithmic, for counts from 1 to `most`."""
    axes.set_xscale("log")
    axes.set_xlim(0.93, 1.08 * max(2, most))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(label)


def _width(text: str, font: FontProperties) -> float:
    """Width of a line of text, in points."""
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]) if text else 0.0


def _fitting(legend: Sequence[Any], columns: int, width: float, font: FontProperties) -> int:
    """Number of legend columns that fit, at most those wanted."""
    sizes = [_width(str(handle.get_label()), font) for handle in legend]
    for count in range(min(columns, len(sizes)), 1, -1):
        rows = -(-len(sizes) // count)
        widest = [max(sizes[start : start + rows]) for start in range(0, len(sizes), rows)]
        if sum(widest) + (len(widest) * (HANDLE + 1) + (len(widest) - 1) * SPACE) * font.get_size_in_points() < width:
            return count
    return 1


def _wrapped(text: str, width: float, font: FontProperties) -> list[str]:
    """The text in lines of at most a width in points, as far as words allow."""
    needed = _width(text, font)
    return textwrap.wrap(text, max(20, int(len(text) * min(1.0, 0.96 * width / max(needed, 1.0)))))


def frame(
    figure: Figure, finding: str, detail: str, *, legend: Sequence[Any] = (), columns: int = 3, note: str = ""
) -> None:
    """Adds text around the axes of a figure, which grows by its height.

    Args:
        figure: a figure whose axes are drawn.
        finding: the main result, in one sentence, at the top.
        detail: its evidence: numbers of sequences and tries, intervals.
        legend: entries of the legend below the axes, column by column.
        columns: of the legend.
        note: information needed to read the figure, at the bottom.
    """
    fonts = [FontProperties(size=11, weight="bold"), FontProperties(size=9), FontProperties(size=8.5)]
    width = 72 * figure.get_figwidth() - 2 * EDGE
    bold, light, small = (
        _wrapped(text, width, font) for text, font in zip((finding, detail, note), fonts, strict=True)
    )
    columns = _fitting(legend, columns, width, fonts[2])
    rows = -(-len(legend) // columns)
    head = EDGE + 16 * len(bold) + 13 * len(light) + 3
    foot = 11.5 * len(small) + (4 if small else 0) + (13.2 * rows + 6 if rows else 0)
    axes_height = 72 * figure.get_figheight()
    height = axes_height + head + foot
    figure.set_figheight(height / 72)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "by the style"
    engine.set(rect=(0, foot / height, 1, axes_height / height))
    places = ((bold, height - EDGE, "top"), (light, height - EDGE - 16 * len(bold), "top"), (small, 5, "bottom"))
    for font, (lines, y, va) in zip(fonts, places, strict=True):
        look: dict[str, Any] = {"va": va, "linespacing": 1.25, "color": "black" if lines is bold else "#333333"}
        figure.text(EDGE / (width + 2 * EDGE), y / height, "\n".join(lines), fontproperties=font, **look)
    if legend:
        over_note = (0.5, (11.5 * len(small) + (6 if small else 0)) / height)
        about: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": over_note, "borderaxespad": 0.0}
        figure.legend(handles=list(legend), ncols=columns, handlelength=HANDLE, columnspacing=SPACE, **about)
