"""The common main function of the figure scripts: reads runs, draws, prints the file names."""

import argparse
import sys
import warnings

from analysis import InputError
from analysis.plots.options import add_appearance, appearance
from analysis.plots.registry import NAMES, draw_all
from analysis.plots.source import Source


def main(*names: str) -> int:
    """Draws the named figures (default: all) of the runs on the command line.

    Returns:
        The exit code: 0, or 2 on bad input or if no figure was drawn, with the reason on standard error.
    """
    parser = argparse.ArgumentParser(
        description=f"Draws {', '.join(names or NAMES)} of a run, with the numbers as CSV and the caption as text. "
        "Several runs are drawn on one axis where the figure can, else in one folder per run.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder")
    parser.add_argument("--out", metavar="DIR", required=True, help="output folder")
    parser.add_argument("--criterion", metavar="METRIC", help="metric to read runs by (default: their own)")
    parser.add_argument(
        "--cost", metavar="COST", help="cost to read runs by: layers, or a file of 'oracle profile --out'"
    )
    add_appearance(parser)
    arguments = parser.parse_args()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        config = appearance(arguments)
        sources = [Source.open(run, criterion=arguments.criterion, costs=arguments.cost) for run in arguments.runs]
        look = {"labels": arguments.labels, "config": config}
        pictures = list(draw_all(sources, arguments.out, names=names or None, **look))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for picture in pictures:
        print(*picture.files, sep="\n", end="\n" * bool(picture.files))
        if picture.skipped:
            print(f"{picture.name}: {picture.skipped}", file=sys.stderr)
    return 0 if any(picture.files for picture in pictures) else 2
