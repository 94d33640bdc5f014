"""Panels, legend and title of a figure of a given width, without words on one another."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain, takewhile
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

from analysis.formatting import plain
from analysis.plots.fonts import complete_glyphs, covering, said_once
from analysis.plots.source import Drawing, Panel
from analysis.plots.style import FigureConfig, resolve_colors, styled

__all__ = ["compose", "legend_entries", "name_rows"]

EDGE = 5
"""Distance between a figure's edge and its text, in points."""

HANDLE, SPACE, PAD = 3.2, 1.8, 0.8
"""Length of a legend's samples, the space between its columns and after its samples, in multiples of its font size."""

USUAL = 9.0
"""Size of text, in points, for which the heights of panels are given."""

NAMES = 0.36
"""Maximum share of a figure's width for the names of rows."""

LINE = 1.3
"""Distance of lines of text, in multiples of their font size."""


def width_of(text: str, font: FontProperties) -> float:
    """Width of the widest line of a text, in points; a little more, as renderers round the places of letters."""
    lines, font = text.split("\n"), covering(text, font)
    return 1.04 * max(TextToPath().get_text_width_height_descent(line, font, False)[0] if line else 0 for line in lines)


def wrapped(text: str, width: float, font: FontProperties) -> str:
    """The text in as few lines of at most a width in points as it needs; long words are broken, numbers keep units."""
    text = _tied(text)
    if width_of(text, font) <= width:
        return text
    for count in range(len(text), 3, -1):
        lines = "\n".join(textwrap.wrap(text, count, break_on_hyphens=False))
        if width_of(lines, font) <= width:
            return lines
    return text


def _tied(text: str) -> str:
    """The text with numbers tied to their units, and to the names before an equals sign."""
    text = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)
    return re.sub(r" = (?=[\d.])", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text)


def balanced(text: str, width: float, font: FontProperties) -> str:
    """The text in as few lines as it needs, of similar lengths."""
    text = _tied(text)
    lines = wrapped(text, width, font)
    for count in range(len(text) if "\n" in lines else 0):
        even = textwrap.wrap(text, count + 1, break_on_hyphens=False)
        if len(even) <= lines.count("\n") + 1:
            return "\n".join(even) if width_of("\n".join(even), font) <= width else lines
    return lines


def distinct(names: Sequence[str], room: Sequence[float], font: FontProperties) -> list[str]:
    """The names within widths in points, with ellipses for as much as needed of what all begin and end with."""
    head = _shared(names)
    tail = _shared([name[head:][::-1] for name in names])
    for cut in range(1, max(head, tail) + 1):
        begin, end = (size if (size := min(cut, whole)) > 1 else 0 for whole in (head, tail))
        first, last = ("\N{HORIZONTAL ELLIPSIS}" if size else "" for size in (begin, end))
        short = [first + name[begin : len(name) - end] + last for name in names]
        if all(width_of(name, font) <= width for name, width in zip(short, room, strict=True)):
            break
    return short if head + tail else list(names)


def _shared(texts: Sequence[str]) -> int:
    """Number of characters with which all texts begin."""
    return sum(1 for _ in takewhile(lambda chars: len(set(chars)) == 1, zip(*texts, strict=False)))


def shortened(text: str, width: float, font: FontProperties) -> str:
    """The text, or its two ends around an ellipsis, within a width in points."""
    if width_of(text, font) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2].rstrip()}\N{HORIZONTAL ELLIPSIS}{text[len(text) - kept // 2 :].lstrip()}"
        if width_of(short, font) <= width:
            return short
    return "\N{HORIZONTAL ELLIPSIS}"


def name_rows(
    axes: Axes,
    places: Sequence[float],
    names: Sequence[str],
    suffixes: Sequence[str] | None = None,
    *,
    shorter: Sequence[str] | None = None,
) -> None:
    """Labels rows of a vertical axis, on one line each and shortened in the middle where they are long.

    Args:
        axes: their axes.
        places: of the rows.
        names: untrusted; names that become equal are numbered.
        suffixes: after each name, never shortened.
        shorter: the names in fewer words, for axes where some do not fit.
    """
    axes.set_yticks(list(places), [""] * len(names))
    axes.tick_params(axis="y", length=0)
    figure = axes.get_figure(root=True)
    assert figure is not None, "drawn in a figure"
    font = axes.yaxis.get_majorticklabels()[0].get_fontproperties() if len(names) else FontProperties()
    room = NAMES * 72 * figure.get_figwidth() * min(1.0, max(0.62, axes.get_position().width / 0.775))
    seen: dict[str, int] = {}
    labels = []
    after = suffixes or [""] * len(names)
    shown = [plain(name) for name in names]
    rooms = [room - width_of(suffix, font) for suffix in after]
    fits = all(width_of(name, font) <= width for name, width in zip(shown, rooms, strict=True))
    if not fits and shorter:
        shown = [plain(name) for name in shorter]
        fits = all(width_of(name, font) <= width for name, width in zip(shown, rooms, strict=True))
    if not fits and len(set(shown)) == len(shown) > 1:
        shown = distinct(shown, rooms, font)
    for name, suffix, width in zip(shown, after, rooms, strict=True):
        short = shortened(name, width, font)
        seen[short] = seen.get(short, 0) + 1
        numbered = short if seen[short] == 1 else f"{short} ({seen[short]})"
        labels.append(numbered + suffix)
    axes.set_yticks(list(places), labels)


def legend_entries(axes: Iterable[Axes]) -> list[tuple[Artist, str]]:
    """Labelled artists of all axes, one per label, in order."""
    found: dict[str, Artist] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [(handle, label) for label, handle in found.items()]


_Placed = tuple[Panel, Axes, float]
"""A panel with its axes and their width in inches, labels included."""


def compose(drawing: Drawing, config: FigureConfig | None = None) -> Figure:
    """Draws the panels of a figure side by side, or below one another where it is narrow.

    Args:
        drawing: what to draw.
        config: its appearance.
    """
    config = config or FigureConfig()
    with styled(config), said_once():
        rows = _rows(drawing.panels.values(), config)
        figure = Figure(figsize=(config.width, 1), layout="constrained")
        # Heights are given for the usual size of text.
        scale = max(1.0, FontProperties().get_size_in_points() / USUAL)
        heights = [scale * max(panel.height for panel in row) for row in rows]
        figure.set_figheight(sum(heights))
        grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
        placed: list[list[_Placed]] = []
        for place, row in enumerate(rows):
            ratios = [panel.share or 1.0 for panel in row]
            # A cell of the grid itself where it can be: its axes are aligned with those above and below.
            cells = grid[place].subgridspec(1, len(row), width_ratios=ratios) if len(row) > 1 else [grid[place]]
            widths = [config.width * ratio / sum(ratios) for ratio in ratios]
            placed.append([(panel, figure.add_subplot(cells[at]), widths[at]) for at, panel in enumerate(row)])
        for panel, axes, _ in chain.from_iterable(placed):
            panel.draw(axes)
            resolve_colors(axes)
        for panels, height in zip(placed, heights, strict=True):
            _fit_labels(panels, height, titles=len(drawing.panels) > 1)
        _surround(figure, drawing, config)
        complete_glyphs(_texts(figure))
        return figure


def _texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def _rows(panels: Iterable[Panel], config: FigureConfig) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if panel.share and rows and not config.narrow:
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return rows


def _fit_labels(row: list[_Placed], height: float, *, titles: bool) -> None:
    """Wraps the labels of axes beside one another that are longer than these; adds titles, level with each other."""
    size = FontProperties().get_size_in_points()
    title = FontProperties(size=mpl.rcParams["axes.titlesize"], weight=mpl.rcParams["axes.titleweight"])
    heads = []
    for panel, axes, width in row:
        names = [width_of(label.get_text(), label.get_fontproperties()) for label in axes.get_yticklabels()]
        inside = 72 * width - max([4 * size, *names]) - 3.6 * size
        for text, room in ((axes.xaxis.label, inside), (axes.yaxis.label, 72 * (height - 0.6))):
            text.set_text(balanced(text.get_text(), room, text.get_fontproperties()))
        heads.append(balanced(panel.title, inside, title) if titles else "")
    lines = max(head.count("\n") for head in heads)
    for (_, axes, _), head in zip(row, heads, strict=True):
        if head:
            axes.set_title(head + "\n" * (lines - head.count("\n")))


def _surround(figure: Figure, drawing: Drawing, config: FigureConfig) -> None:
    """Adds title and legend, by whose height the figure grows."""
    size = FontProperties().get_size_in_points()
    room = 72 * config.width - 2 * EDGE
    fonts = (FontProperties(size=1.15 * size, weight="bold"), FontProperties(size=size))
    texts = (drawing.finding, drawing.detail) if config.title else ("", "")
    lines = [balanced(plain(text), room, font) for text, font in zip(texts, fonts, strict=True)]
    rises = [
        LINE * font.get_size_in_points() * (text.count("\n") + 1) if text else 0.0
        for text, font in zip(lines, fonts, strict=True)
    ]
    entries = legend_entries(figure.axes)
    columns, labels = _fitting([label for _, label in entries], drawing.columns, room, fonts[1])
    foot = 0.0
    if labels:
        stacks = np.array_split([1.2 * label.count("\n") + 1.44 for label in labels], columns)
        foot = size * (max(float(stack.sum()) for stack in stacks) + 0.8)
    head = sum(rises) + (EDGE + 4 if config.title else 0)
    inner = 72 * figure.get_figheight()
    height = inner + head + foot
    figure.set_figheight(height / 72)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "as it was made"
    engine.set(rect=(0, foot / height, 1, inner / height), hspace=0.03, wspace=0.03)
    top = height - EDGE
    for text, font, rise, color in zip(lines, fonts, rises, ("black", "#333333"), strict=True):
        if text:
            figure.text(
                EDGE / (room + 2 * EDGE),
                top / height,
                text,
                fontproperties=font,
                va="top",
                linespacing=1.15,
                color=color,
            )
            top -= rise
    if labels:
        about: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 3 / height), "borderaxespad": 0.0}
        spaces: dict[str, Any] = {
            "handlelength": HANDLE,
            "handletextpad": PAD,
            "columnspacing": SPACE,
            "labelspacing": 0.35,
            "borderpad": 0.0,
        }
        figure.legend([handle for handle, _ in entries], labels, ncols=columns, fontsize=size, **about, **spaces)


def _fitting(labels: list[str], columns: int, room: float, font: FontProperties) -> tuple[int, list[str]]:
    """Number of legend columns that fit, at most those wanted, and the labels, wrapped if they fill a column."""
    size = font.get_size_in_points()
    widths = [width_of(label, font) for label in labels]
    for count in range(min(columns, len(labels)), 1, -1):
        widest = [max(column) for column in np.array_split(widths, count)]
        if sum(widest) + (len(widest) * (HANDLE + PAD) + (len(widest) - 1) * SPACE) * size < room:
            return count, labels
    return 1, [wrapped(label, room - (HANDLE + PAD + 0.5) * size, font) for label in labels]
