"""`oracle figures`: the figures of stored runs. Needs no model."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import add_quiet, add_view, command, progress, view_name
from oracle.errors import InputError
from oracle.utils.text import printable

if TYPE_CHECKING:
    from analysis.plots.registry import Picture
    from analysis.plots.source import Source
    from analysis.plots.style import FigureConfig
    from oracle.utils.progress import Watch

__all__ = ["EPILOG", "add_figures", "draw_runs"]

EPILOG = """\
figures of one run:
  oracle_quality     mean quality against the mean fraction of layers: oracle, fixed policies, shuffled references
  minimal_budgets    minimal budgets per task, each sequence between its bounds
  layer_use          which layers the minimal allocations use
  luck_curve         fraction found against allocations tried
  rarity             share of random masks that qualify, by size
  depth_right_wrong  right and wrong sequences for which some allocation is right
  skip_against_exit  skipping against early exit, hidden states and quality (after oracle measure)
  throughput         measured speed and quality of fixed policies (after oracle measure)
  controllers        controllers between static masks and the oracle (after oracle compare)
  static_masks       divergence and quality of one mask for all sequences (after oracle static)
  drafts             accepted tokens of drafts against their cost (after oracle draft)
figures of several runs on one axis: oracle_quality, minimal_budgets, luck_curve, and
  strategies         fraction found against allocations tried, by strategy
"""


def add_figures(commands: Any) -> None:
    """Adds `oracle figures`."""
    from analysis.plots.options import add_appearance

    about = (
        "Redraw the figures of stored runs, with their numbers as CSV and their captions; needs no model. Exit code 1 "
        "if a figure named with --only cannot be drawn."
    )
    parser = command(commands, "figures", _run_figures, about)
    parser.epilog = EPILOG
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="run folders; several are drawn on one axis where possible"
    )
    parser.add_argument(
        "--out", type=Path, help="output folder (default for one run: RUN/figures, or RUN/figures-METRIC-COST)"
    )
    parser.add_argument(
        "--only", metavar="FIGURE", action="append", help="draw this figure only (names below); repeatable"
    )
    add_appearance(parser)
    add_view(parser)
    add_quiet(parser)


def _run_figures(arguments: argparse.Namespace) -> int:
    from analysis.plots.options import appearance
    from analysis.plots.registry import NAMES
    from analysis.plots.source import Source

    if arguments.out is None and len(arguments.folders) > 1:
        raise InputError("several runs need --out, a folder for their figures")
    for folder in arguments.folders:
        if str(folder) in NAMES and not folder.exists():
            raise InputError(f"RUN needs a run folder, not '{folder}', which is a figure; write --only {folder}")
    config = appearance(arguments)
    out = arguments.out or arguments.folders[0] / view_name("figures", arguments)
    options = {"criterion": arguments.criterion, "costs": arguments.cost}
    sources = [Source.open(folder, **options) for folder in arguments.folders]
    watch = progress(arguments, only_terminal=True)
    pictures = draw_runs(sources, out, watch=watch, names=arguments.only, labels=arguments.labels, config=config)
    files = [str(path) for picture in pictures for path in picture.files]
    skipped = {picture.name: picture.skipped for picture in pictures if picture.skipped}
    if arguments.json:
        print(json.dumps({"figures": files, "skipped": skipped}))
    else:
        print("".join(f"{printable(file)}\n" for file in files), end="")
        for name, why in skipped.items():
            print(f"{printable(name)}: {printable(why)}", file=sys.stderr)
    return 1 if arguments.only and skipped else 0


def draw_runs(
    sources: Sequence["Source"],
    out: Path,
    *,
    watch: "Watch",
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    config: "FigureConfig | None" = None,
) -> list["Picture"]:
    """Draws figures of runs; see `analysis.plots.registry.draw_all`. Warnings are lines on standard error.

    Args:
        sources: the runs.
        out: output folder.
        watch: progress display.
        names: of the figures; None for all.
        labels: of the runs.
        config: size, formats and style.

    Returns:
        The figures, drawn or skipped with the reason.
    """
    from analysis.plots.registry import draw_all, picture_count

    pictures: list[Picture] = []
    with (
        warnings.catch_warnings(record=True) as caught,
        watch("Drawing", picture_count(len(sources), names)) as advance,
    ):
        warnings.simplefilter("always", UserWarning)
        for picture in draw_all(sources, out, names=names, labels=labels, config=config):
            pictures.append(picture)
            advance(1, picture.name)
    for line in dict.fromkeys(str(one.message) for one in caught):
        print(f"warning: {printable(line)}", file=sys.stderr)
    return pictures
