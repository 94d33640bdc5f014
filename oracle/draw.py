"""The figures of runs, one after the other, with progress."""

from collections.abc import Sequence
from pathlib import Path

import analysis
from analysis.plot_data import Source
from analysis.plots import FIGURES, NAMES, Picture, draw_all
from oracle.progress import Watch, silent

__all__ = ["draw", "draw_runs"]


def draw(
    experiment: analysis.Experiment,
    out: Path,
    *,
    folder: Path | None = None,
    summary: analysis.Summary | None = None,
    watch: Watch = silent,
) -> list[Path]:
    """Draws every figure of a run as PNG and PDF, with its numbers as CSV.

    Args:
        experiment: the run.
        out: folder for the pictures.
        folder: where the run is stored; without it figures of what was measured afterwards are left out.
        summary: of the run, if it is known already.
        watch: shows progress.

    Returns:
        The files written.
    """
    source = Source(experiment=experiment, folder=folder, known=summary)
    return [path for picture in draw_runs([source], out, watch=watch) for path in picture.files]


def draw_runs(sources: Sequence[Source], out: Path, *, watch: Watch = silent) -> list[Picture]:
    """Draws every figure of runs; see `analysis.plots.draw_all`.

    Args:
        sources: the runs.
        out: folder for the pictures.
        watch: shows progress.

    Returns:
        The figures, drawn or skipped with the reason.
    """
    pictures: list[Picture] = []
    with watch("Drawing", len(FIGURES) * len(sources) + len(NAMES) - len(FIGURES)) as advance:
        for picture in draw_all(sources, out):
            pictures.append(picture)
            advance(1, picture.name)
    return pictures
