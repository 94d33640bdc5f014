"""`oracle figures`: the figures of stored runs. Needs no model."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import add_quiet, add_view, command, progress, view_name
from oracle.errors import InputError
from oracle.utils.text import printable

if TYPE_CHECKING:
    from analysis.plots.registry import Picture
    from analysis.plots.source import Source
    from oracle.utils.progress import Watch

__all__ = ["add_figures", "draw_runs"]


def add_figures(commands: Any) -> None:
    """Adds `oracle figures`."""
    about = "Redraw the figures of stored runs, with their numbers as CSV; needs no model."
    parser = command(commands, "figures", _run_figures, about)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="run folders; several are also compared")
    parser.add_argument(
        "--out", type=Path, help="output folder (default for one run: RUN/figures, or RUN/figures-METRIC-COST)"
    )
    add_view(parser)
    add_quiet(parser)


def _run_figures(arguments: argparse.Namespace) -> None:
    from analysis.plots.source import Source

    if arguments.out is None and len(arguments.folders) > 1:
        raise InputError("several runs need --out, a folder for their figures")
    out = arguments.out or arguments.folders[0] / view_name("figures", arguments)
    options = {"criterion": arguments.criterion, "costs": arguments.cost}
    sources = [Source.open(folder, **options) for folder in arguments.folders]
    pictures = draw_runs(sources, out, watch=progress(arguments, only_terminal=True))
    files = [str(path) for picture in pictures for path in picture.files]
    skipped = {picture.name: picture.skipped for picture in pictures if picture.skipped}
    if arguments.json:
        print(json.dumps({"figures": files, "skipped": skipped}))
        return
    print("\n".join(map(printable, files)))
    for name, why in skipped.items():
        print(f"{printable(name)}: {printable(why)}", file=sys.stderr)


def draw_runs(sources: Sequence["Source"], out: Path, *, watch: "Watch") -> list["Picture"]:
    """Draws every figure of runs; see `analysis.plots.registry.draw_all`.

    Args:
        sources: the runs.
        out: output folder.
        watch: progress display.

    Returns:
        The figures, drawn or skipped with the reason.
    """
    from analysis.plots.registry import FIGURES, NAMES, draw_all

    pictures: list[Picture] = []
    with watch("Drawing", len(FIGURES) * len(sources) + len(NAMES) - len(FIGURES)) as advance:
        for picture in draw_all(sources, out):
            pictures.append(picture)
            advance(1, picture.name)
    return pictures
