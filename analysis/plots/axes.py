"""The figures as functions that draw one panel on axes.

None changes matplotlib's settings: sizes, fonts, line widths and colours follow the caller's `rcParams`. The artists
carry labels, so that `axes.legend()` makes the legend. All panels in files, with numbers and caption: `draw`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Text

from analysis.experiment import InputError
from analysis.plots.fonts import complete_glyphs, said_once
from analysis.plots.registry import COMPARISONS, Picture, check_names, drawing_of
from analysis.plots.registry import draw_all as draw_sources
from analysis.plots.source import MissingError, RunLike, Runs, grouped
from analysis.plots.style import FigureConfig, resolve_colors
from oracle.utils.validation import check_list

__all__ = [
    "caption",
    "controllers",
    "depth_right_wrong",
    "drafts",
    "draw",
    "draw_all",
    "layer_use",
    "luck_curve",
    "minimal_budgets",
    "oracle_quality",
    "rarity",
    "skip_against_exit",
    "static_masks",
    "strategies",
    "throughput",
]


def _on_axes(name: str, runs: Runs, ax: Axes | None, panel: str) -> Axes:
    """Draws one panel of a figure on the axes, or on those of a new pyplot figure."""
    drawing = drawing_of(name, grouped(runs))
    if panel not in drawing.panels:
        known = ", ".join(drawing.panels)
        raise InputError(f"panel {panel!r} of {name} does not exist for these runs; available: {known}")
    axes = plt.subplots(layout="constrained")[1] if ax is None else ax
    with said_once():
        drawing.panels[panel].draw(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_wrap(True)  # at the figure's edges: how wide the axes will be is not known yet
    resolve_colors(axes)
    complete_glyphs(text for text in axes.findobj(Text) if isinstance(text, Text) and text.get_text())
    return axes


def caption(figure: str, runs: Runs) -> str:
    """Words of a figure: its finding, the evidence, and what is needed to read it.

    Args:
        figure: a name of `analysis.plots.registry.NAMES`.
        runs: see `analysis.plots.source.Runs`.
    """
    return drawing_of(figure, grouped(runs)).caption


def draw(figure: str, runs: Runs, out: Path | str, *, config: FigureConfig | None = None) -> Picture:
    """Writes a figure with all its panels as files: pictures, numbers (CSV), caption and provenance.

    Args:
        figure: a name of `analysis.plots.registry.NAMES`.
        runs: see `analysis.plots.source.Runs`.
        out: folder; created if missing.
        config: size, formats and style.

    Raises:
        InputError: if the name is unknown, or a file cannot be written.
        MissingError: if the figure cannot be drawn of these runs.
    """
    groups = grouped(runs)
    sources = [source for group in groups for source in group.sources]
    check_names([figure])
    if len(sources) > 1 and figure not in COMPARISONS:
        drawing_of(figure, groups)  # raises, and names those of several runs
    labels = [group.label for group in groups for _ in group.sources]
    [picture] = draw_sources(sources, out, names=[figure], labels=labels, config=config)
    if picture.skipped:
        raise MissingError(picture.skipped)
    return picture


def draw_all(
    runs: Runs,
    out: Path | str,
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    config: FigureConfig | None = None,
) -> list[Picture]:
    """Draws figures of runs into a folder, with their numbers, captions and provenance.

    Args:
        runs: a run, several, or runs by label. Of several, the figures of `analysis.plots.registry.COMPARISONS` are
            drawn of all together into `out`, the others of each into a folder of its name.
        out: the folder; created if missing.
        names: some of `analysis.plots.registry.NAMES`; None for all that can be drawn of so many runs.
        labels: of the runs in figures of several, if they are a list; equal labels are repetitions, such as seeds. None
            for the folders' names.
        config: size, formats and style.

    Returns:
        The pictures. A figure whose table is missing in a run is skipped, with the reason.

    Raises:
        InputError: if a name is unknown, the numbers of runs and labels differ, or a file cannot be written.
    """
    check_list(names, "names")
    check_list(labels, "labels")
    names = None if names is None else list(names)
    check_names(names or ())
    groups = grouped(runs)
    if labels is None:
        labels = [group.label for group in groups for _ in group.sources]
    elif isinstance(runs, Mapping):
        raise InputError("runs by label have their labels already: leave out labels, or give the runs as a list")
    sources = [source for group in groups for source in group.sources]
    return list(draw_sources(sources, out, names=names, labels=labels, config=config))


def oracle_quality(runs: Runs, ax: Axes | None = None) -> Axes:
    """Mean quality of the data-set oracle against the mean fraction of layers.

    Args:
        runs: a run, several, or runs by label; several runs of one label are repetitions, drawn as mean and deviation.
        ax: where to draw; None for new axes of pyplot.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("oracle_quality", runs, ax, "quality")


def minimal_budgets(
    runs: Runs, ax: Axes | None = None, *, panel: Literal["distribution", "tasks"] = "distribution"
) -> Axes:
    """Distribution of the minimal budgets, or of a single run every sequence by task.

    Args:
        runs: a run, several, or runs by label; several runs of one label are repetitions, drawn as mean and deviation.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `distribution` or `tasks`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("minimal_budgets", runs, ax, panel)


def luck_curve(
    runs: Runs, ax: Axes | None = None, *, panel: Literal["per_sequence", "equal_quality"] = "per_sequence"
) -> Axes:
    """Mean minimal budget, or the oracle's fraction, against the number of allocations tried.

    Args:
        runs: a run, several, or runs by label; several runs of one label are repetitions, drawn as mean and deviation.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `per_sequence` or `equal_quality`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("luck_curve", runs, ax, panel)


def strategies(runs: Runs, ax: Axes | None = None) -> Axes:
    """Mean minimal budget against the evaluations spent, one curve per run; at least two runs.

    Args:
        runs: two runs or more, each a curve.
        ax: where to draw; None for new axes of pyplot.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("strategies", runs, ax, "budget")


def layer_use(run: RunLike, ax: Axes | None = None, *, panel: Literal["profile", "tasks"] = "profile") -> Axes:
    """Layers that the minimal allocations run: share over all, or by task.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `profile` or `tasks`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("layer_use", run, ax, panel)


def rarity(run: RunLike, ax: Axes | None = None, *, panel: Literal["linear", "log"] = "linear") -> Axes:
    """Share of the random masks of a size that meet the criterion, on a linear or a logarithmic scale.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `linear` or `log`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("rarity", run, ax, panel)


def depth_right_wrong(run: RunLike, ax: Axes | None = None, *, panel: Literal["depth", "tries"] = "depth") -> Axes:
    """Samples that are right, of those that the full model gets right and wrong, by depth or by tries.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `depth` or `tries`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("depth_right_wrong", run, ax, panel)


def skip_against_exit(run: RunLike, ax: Axes | None = None, *, panel: Literal["cosine", "output"] = "cosine") -> Axes:
    """Unified skipping against early exit: cosine to the full hidden state, or the output's quality.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `cosine` or `output`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("skip_against_exit", run, ax, panel)


def throughput(run: RunLike, ax: Axes | None = None, *, panel: Literal["gain", "quality"] = "gain") -> Axes:
    """Measured gain of unified skipping beside the ideal one, or the quality of every measured policy.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `gain` or `quality`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("throughput", run, ax, panel)


def controllers(run: RunLike, ax: Axes | None = None, *, panel: Literal["quality", "captured"] = "quality") -> Axes:
    """Quality of controllers between static allocations and the oracle, or the share of the headroom captured.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `quality` or `captured`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("controllers", run, ax, panel)


def static_masks(
    run: RunLike, ax: Axes | None = None, *, panel: Literal["divergence", "quality", "masks"] = "divergence"
) -> Axes:
    """Static masks: divergence from the full model or quality by budget, or the layers of the chosen masks.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.
        panel: which axes of the figure, `divergence` or `quality` or `masks`.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("static_masks", run, ax, panel)


def drafts(run: RunLike, ax: Axes | None = None) -> Axes:
    """Accepted draft tokens per round against the cost of a draft token.

    Args:
        run: a path, an `oracle.Run`, an `Experiment` or a `Source`.
        ax: where to draw; None for new axes of pyplot.

    Returns:
        The axes.

    Raises:
        InputError: if the run cannot be read.
        MissingError: if it lacks what the figure shows; names the command.
    """
    return _on_axes("drafts", run, ax, "accepted")
