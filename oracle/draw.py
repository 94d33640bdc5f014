"""The figures of runs, one after the other, with progress."""

from collections.abc import Sequence
from pathlib import Path

from analysis.plots.registry import FIGURES, NAMES, Picture, draw_all
from analysis.plots.source import Source
from oracle.utils.progress import Watch, silent

__all__ = ["draw_runs"]


def draw_runs(sources: Sequence[Source], out: Path, *, watch: Watch = silent) -> list[Picture]:
    """Draws every figure of runs; see `analysis.plots.registry.draw_all`.

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
