"""The common style of all figures: size, fonts, colours, dashes, markers and hatches, and the ticks of axes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from analysis.experiment import InputError
from oracle.utils.paths import nearest_path
from oracle.utils.text import nearest_hint, printable
from oracle.utils.validation import check_types, named_settings

__all__ = [
    "BLUE",
    "FORMATS",
    "GREEN",
    "GREY",
    "LOOKS",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "FigureConfig",
    "Look",
    "count_axis",
    "ink",
    "log_axis",
    "look_of",
    "percent_axis",
    "resolve_colors",
    "styled",
    "thick",
]

# Okabe and Ito's palette, distinguishable with any colour vision; dashes, markers and hatches distinguish in grey.
# `C0` to `C5` of the property cycle, so that a style of the user's own brings its own colours.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = (f"C{place}" for place in range(6))
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
GREY = "#6E6E6E"

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": "medium",
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    # The document that includes a PGF brings the fonts.
    "pgf.rcfonts": False,
    "pgf.texsystem": "pdflatex",
    "savefig.dpi": 150,
    "svg.hashsalt": "layer-oracle",
    "xtick.color": "#444444",
    "xtick.labelcolor": "black",
    "xtick.labelsize": "medium",
    "ytick.color": "#444444",
    "ytick.labelcolor": "black",
    "ytick.labelsize": "medium",
}
"""Matplotlib settings for building and saving a figure."""

FORMATS = ("png", "pdf", "svg", "pgf")

NARROWEST, WIDEST = 2.0, 30.0
"""Limits of a figure's width, in inches."""

SMALLEST, LARGEST = 4.0, 30.0
"""Limits of the font size, in points."""

COLUMN = 4.6
"""Width in inches below which panels stand below one another, and the font is that of a column of a paper."""


@named_settings
@dataclass(frozen=True, kw_only=True)
class FigureConfig:
    """Appearance of the files of a figure.

    Attributes:
        width: in inches; 3.25 and 6.75 are one and two columns of common conference styles.
        font_size: in points; None for 7.5 below 4.6 inches and 9 above, or what `style` says.
        title: whether the finding and its evidence stand above the axes; they are in the caption in any case.
        formats: some of `FORMATS`.
        style: a matplotlib style sheet that is read after the package's own.

    Raises:
        InputError: if a value is out of range, or the style sheet cannot be read.
    """

    width: float = 6.75
    font_size: float | None = None
    title: bool = True
    formats: tuple[str, ...] = ("png", "pdf")
    style: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.style, str):
            object.__setattr__(self, "style", Path(self.style))
        check_types(self)
        if not NARROWEST <= self.width <= WIDEST:
            raise InputError(
                f"width must be {NARROWEST:g} to {WIDEST:g} inches, not {self.width:g}: 3.25 is one column"
            )
        if self.font_size is not None and not SMALLEST <= self.font_size <= LARGEST:
            raise InputError(f"font size must be {SMALLEST:g} to {LARGEST:g} points, not {self.font_size:g}")
        if not self.formats:
            raise InputError(f"at least one format is required: some of {', '.join(FORMATS)}")
        for name in self.formats:
            if name not in FORMATS:
                hint = nearest_hint(name, FORMATS)
                raise InputError(f"format must be one of {', '.join(FORMATS)}, not {printable(name)!r}{hint}")
        if self.style is not None:
            _check_style(self.style)

    @property
    def narrow(self) -> bool:
        """Whether the figure is as wide as one column of a paper."""
        return self.width < COLUMN


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What matplotlib logs: of settings that do not exist it raises nothing."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("matplotlib")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _check_style(path: Path) -> None:
    try:
        with path.open(encoding="utf-8") as file:
            file.read()
        with _complaints() as said:
            mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
        if said:
            raise ValueError(said[0])
    except OSError as error:
        raise InputError(
            f"cannot read the style sheet '{path}' ({error.strerror}){nearest_path(path)}; give a .mplstyle file"
        ) from error
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"'{path}' is no matplotlib style sheet: {reason}; correct that line") from error


@contextmanager
def styled(config: FigureConfig | None = None) -> Iterator[None]:
    """The style, for a `with` block or as a decorator; the caller's settings are restored afterwards."""
    config = config or FigureConfig()
    size = {"font.size": 7.5 if config.narrow else 9.0}
    own = {"font.size": config.font_size} if config.font_size else {}
    layers: list[str | Path | dict[str, Any]] = [STYLE, size, *([str(config.style)] if config.style else []), own]
    with mpl.style.context(layers):
        yield


def resolve_colors(axes: Axes) -> None:
    """Gives lines the colours of the property cycle that holds now: matplotlib would look them up when it draws."""
    for line in axes.lines:
        faces = line.get_markerfacecolor(), line.get_markeredgecolor()
        line.set_color(to_rgba(line.get_color()))
        line.set_markerfacecolor(to_rgba(faces[0]))
        line.set_markeredgecolor(to_rgba(faces[1]))


def thick(factor: float) -> float:
    """A line width in points: a multiple of the one that is set."""
    return factor * float(mpl.rcParams["lines.linewidth"])


def ink() -> str:
    """Colour of lines that belong to no series: that of the text."""
    return str(mpl.rcParams["text.color"])


@dataclass(frozen=True, kw_only=True)
class Look:
    """Appearance of one series, distinguishable in colour and in grey."""

    color: str
    dashes: Any
    marker: str
    hatch: str

    def line(self, **more: Any) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "linestyle": self.dashes, "marker": self.marker, **more}

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


class FittingLocator(MaxNLocator):
    """Round ticks, as many as have room beside one another.

    Args:
        ems: room of a tick's label along a horizontal axis, in multiples of its font size.
        integer: whether only whole numbers get ticks.
    """

    def __init__(self, ems: float, *, integer: bool = False) -> None:
        super().__init__(nbins=10, steps=[1, 2, 5, 10], integer=integer)
        self._ems = ems

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Places of the ticks, by the length that the axis has now."""
        assert isinstance(self.axis, Axis), "an axis of a plot"
        axes = self.axis.axes
        across = self.axis is axes.xaxis
        figure = axes.get_figure(root=True)
        assert figure is not None, "drawn in a figure"
        points = 72 / figure.dpi * (axes.bbox.width if across else axes.bbox.height)
        size = float(self.axis.label.get_fontsize())
        self._nbins = max(1, min(10, int(points / (size * (self._ems if across else 2.0)))))
        return super().tick_values(vmin, vmax)


def percent_axis(axis: Axis) -> None:
    """Labels an axis of fractions in per cent."""
    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis.set_major_locator(FittingLocator(4.4))


def count_axis(axis: Axis) -> None:
    """Labels an axis of whole numbers."""
    axis.set_major_locator(FittingLocator(2.2, integer=True))


def log_axis(axes: Axes, most: float, label: str) -> None:
    """Makes the horizontal axis logarithmic, for counts from 1 to `most`."""
    axes.set_xscale("log")
    axes.set_xlim(0.93, 1.08 * max(2, most))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most <= 500 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(label)
