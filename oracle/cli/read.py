"""`oracle query` and `oracle figures`: everything that needs a stored run and no model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_quiet, command

__all__ = ["add_figures", "add_query"]


def add_query(commands: Any) -> None:
    """Adds `oracle query`."""
    parser = command(commands, "query", _run_query, "Ask a stored run for minimal budgets; needs no model.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--sequence", metavar="ID", help="one sequence: its frontier and outputs")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="F",
        help="the oracle's choice under a mean budget of F of the layers (0 to 1)",
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")


def add_figures(commands: Any) -> None:
    """Adds `oracle figures`."""
    parser = command(commands, "figures", _run_figures, "Draw the figures of a stored run again; needs no model.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", type=Path, help="folder for the pictures (default: RUN/figures, or RUN/figures-METRIC)"
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")
    add_quiet(parser)


def _run_query(arguments: argparse.Namespace) -> None:
    from oracle import query
    from oracle.store import Run
    from oracle.terminal import show_budgets, show_oracle, show_sequence

    folder, criterion = arguments.folder, arguments.criterion
    layers = Run.open(folder).units
    if arguments.sequence is not None:
        answer: Any = query.sequence_frontier(folder, arguments.sequence, arguments.budget, criterion)
        show: Any = show_sequence
    elif arguments.budget is not None:
        answer, show = query.oracle_at(folder, arguments.budget, criterion), show_oracle
    else:
        answer, show = query.budgets(folder, criterion), show_budgets
    if arguments.json:
        print(json.dumps({"sequences": answer} if isinstance(answer, list) else answer))
    else:
        show(answer, layers)


def _run_figures(arguments: argparse.Namespace) -> None:
    from analysis import load
    from oracle.draw import draw
    from oracle.progress import silent, terminal

    out = arguments.out or arguments.folder / "-".join(filter(None, ("figures", arguments.criterion)))
    experiment = load(arguments.folder, arguments.criterion)
    seen = sys.stderr.isatty() and not arguments.quiet
    names = [str(path) for path in draw(experiment, out, watch=terminal if seen else silent)]
    print(json.dumps({"figures": names}) if arguments.json else "\n".join(names))
