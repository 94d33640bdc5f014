"""What every figure script does: read a run, draw, name the files."""

import argparse
import sys

from analysis import InputError, load
from analysis.plots import FIGURES, draw_all


def main(*names: str) -> int:
    """Draws the figures named, all if none is, of the run given on the command line.

    Returns:
        The exit code: 0, or 2 after a line on standard error about bad input.
    """
    parser = argparse.ArgumentParser(description=f"Draws {', '.join(names or FIGURES)} of a run, as PNG and PDF.")
    parser.add_argument("run", metavar="RUN", help="folder that a search wrote")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the figures")
    parser.add_argument("--criterion", metavar="METRIC", help="metric to read the run by (default: the run's own)")
    parser.add_argument(
        "--cost", metavar="COST", help="read it by other costs: layers, or a file of 'oracle profile --out'"
    )
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.run, criterion=arguments.criterion, costs=arguments.cost)
        files = draw_all(experiment, arguments.out, names=names or tuple(FIGURES))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*files, sep="\n")
    return 0
