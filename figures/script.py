"""The common main function of the figure scripts: reads runs, draws, prints the file names."""

import argparse
import sys

from analysis import InputError
from analysis.plots.registry import NAMES, draw_all
from analysis.plots.source import Source


def main(*names: str) -> int:
    """Draws the named figures (default: all) of the runs on the command line.

    Returns:
        The exit code: 0, or 2 on bad input or if no figure was drawn, with the reason on standard error.
    """
    parser = argparse.ArgumentParser(
        description=f"Draws {', '.join(names or NAMES)} of a run, as PNG and PDF, with the numbers as CSV. "
        "With several runs, one folder per run; comparisons are written next to them."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder")
    parser.add_argument("--out", metavar="DIR", required=True, help="output folder")
    parser.add_argument("--criterion", metavar="METRIC", help="metric to read runs by (default: their own)")
    parser.add_argument(
        "--cost", metavar="COST", help="cost to read runs by: layers, or a file of 'oracle profile --out'"
    )
    arguments = parser.parse_args()
    drawn = 0
    try:
        sources = [Source.open(run, criterion=arguments.criterion, costs=arguments.cost) for run in arguments.runs]
        for picture in draw_all(sources, arguments.out, names=names or NAMES):
            print(*picture.files, sep="\n", end="\n" * bool(picture.files))
            if picture.skipped:
                print(f"{picture.name}: {picture.skipped}", file=sys.stderr)
            drawn += len(picture.files)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if drawn else 2
