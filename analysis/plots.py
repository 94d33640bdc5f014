"""The figures of a run, by name, and drawing them into a folder."""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.figure import Figure

from analysis.load import Experiment
from analysis.plot_budgets import minimal_budgets_histogram
from analysis.plot_curve import luck_curve_panels
from analysis.plot_layers import layer_use_map
from analysis.plot_quality import oracle_quality
from analysis.style import save_figure
from analysis.summary import Summary, summarise

__all__ = ["FIGURES", "draw_all"]

FIGURES: dict[str, Callable[[Experiment, Summary], Figure]] = {
    "oracle_quality": oracle_quality,
    "minimal_budgets": minimal_budgets_histogram,
    "layer_use": layer_use_map,
    "luck_curve": luck_curve_panels,
}
"""Figures by file name; each function touches no global state of matplotlib."""


def draw_all(
    experiment: Experiment,
    out: Path | str,
    *,
    names: Iterable[str] = tuple(FIGURES),
    summary: Summary | None = None,
) -> list[Path]:
    """Draws figures of a run into a folder, as PNG and PDF with their provenance.

    Args:
        experiment: the run.
        out: folder; made if missing.
        names: which of `FIGURES`; all by default.
        summary: of the experiment, if it is there already.

    Returns:
        The files written.
    """
    summary = summary or summarise(experiment)
    return [
        path
        for name in names
        for path in save_figure(FIGURES[name](experiment, summary), Path(out) / name, experiment.provenance)
    ]
