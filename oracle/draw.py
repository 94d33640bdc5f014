"""The figures of a run, one after the other, with progress."""

from pathlib import Path

import analysis
from analysis.plots import FIGURES
from oracle.progress import Watch, silent

__all__ = ["draw"]


def draw(
    experiment: analysis.Experiment, out: Path, *, summary: analysis.Summary | None = None, watch: Watch = silent
) -> list[Path]:
    """Draws every figure as PNG and PDF.

    Args:
        experiment: the run.
        out: folder for the pictures.
        summary: of the run, if it is known already.
        watch: shows progress.

    Returns:
        The files written.
    """
    files: list[Path] = []
    with watch("Drawing", len(FIGURES)) as advance:
        summary = summary or analysis.summarise(experiment)
        for name in FIGURES:
            files += analysis.draw_all(experiment, out, names=[name], summary=summary)
            advance(1, name)
    return files
