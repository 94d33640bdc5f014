"""The options of commands that write figures: `oracle figures` and the scripts in `figures/`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.plots.style import FigureConfig

__all__ = ["add_appearance", "appearance"]


def add_appearance(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `appearance`, and `--label`; the scripts in `figures/` have them too."""
    group = parser.add_argument_group("appearance")
    group.add_argument(
        "--label",
        metavar="TEXT",
        action="append",
        dest="labels",
        help="name of a run in figures of several; repeat it once per run, in their order. Runs of one label are "
        "repetitions, such as seeds: drawn as their mean and standard deviation (default: the folders' names)",
    )
    group.add_argument(
        "--width",
        metavar="INCHES",
        type=float,
        help="of a figure: 3.25 for one column of a paper, 6.75 for two (default: 6.75)",
    )
    group.add_argument(
        "--font-size", metavar="POINTS", type=float, help="of all text (default: 7.5 in one column, 9 in two)"
    )
    group.add_argument("--no-title", action="store_true", help="no title; it stays in the caption, NAME.txt")
    group.add_argument(
        "--format", metavar="LIST", help="formats, separated by commas: png, pdf, svg, pgf (default: png,pdf)"
    )
    group.add_argument(
        "--style", metavar="FILE", type=Path, help="matplotlib style sheet, applied after the package's own"
    )


def appearance(arguments: argparse.Namespace) -> "FigureConfig":
    """Size, formats and style given by the options of `add_appearance`.

    Raises:
        InputError: if one is out of range.
    """
    from analysis.plots.style import FigureConfig

    given: dict[str, Any] = {
        "width": arguments.width,
        "font_size": arguments.font_size,
        "style": arguments.style,
        "title": False if arguments.no_title else None,
        "formats": arguments.format and tuple(name.strip().lower() for name in arguments.format.split(",")),
    }
    return FigureConfig(**{name: value for name, value in given.items() if value is not None})
