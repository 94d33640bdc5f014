"""`oracle query` and `oracle figures`: everything that needs a stored run and no model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_quiet, command
from oracle.errors import InputError
from oracle.utils.text import printable

__all__ = ["add_figures", "add_query"]


EXAMPLES = """\
examples:
  oracle query runs/demo                        minimal budget of every sequence, and how many are proven
  oracle query runs/demo --sequence facts-001   one sequence: its frontier and outputs
  oracle query runs/demo --at-most 0.3          who needs at most 30 % of the layers
  oracle query runs/demo --by-task --csv        means per task, for a spreadsheet
  oracle query runs/demo --allocations 10       which allocations serve the most sequences
  oracle query runs/demo --against runs/demo-2  the same sequences in another run
  oracle query runs/demo --sql "SELECT task, avg(fraction) FROM minimal_budgets JOIN sequences USING (sequence)
                                GROUP BY task"

views for --sql (DuckDB; it can read these, change nothing and reach neither files nor network):
  sequences        sequence, task, prompt, "references", choices, answer, prompt_tokens
  evaluations      sequence, number (0: the full model), family, allocation, cost, fraction, tokens, text, finished,
                   margin, rerun, dropped, and a column per metric
  frontiers        sequence, cost, fraction, quality, number, family, allocation, text: what beats all cheaper ones
  minimal_budgets  sequence, upper, lower, certified, proof, fraction, allocation, family, number, quality,
                   full_quality, zero_quality: there once the search has ended
"""


def add_query(commands: Any) -> None:
    """Adds `oracle query`."""
    parser = command(commands, "query", _run_query, "Ask a stored run for minimal budgets; needs no model.")
    parser.epilog = EXAMPLES
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    questions = parser.add_argument_group("questions (without one: the minimal budget of every sequence)")
    one = questions.add_mutually_exclusive_group()
    one.add_argument("--sequence", metavar="ID", help="one sequence: its frontier and outputs")
    one.add_argument(
        "--at-most", type=float, metavar="F", help="sequences that need at most a fraction F of the layers (0 to 1)"
    )
    one.add_argument("--by-task", action="store_true", help="means per task")
    one.add_argument(
        "--allocations", type=int, metavar="N", help="the N allocations that meet the criterion on the most sequences"
    )
    one.add_argument("--against", type=Path, metavar="RUN", help="compare with another run, sequence by sequence")
    one.add_argument("--sql", metavar="SELECT", help="any SELECT over the views at the end")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="F",
        help="the oracle's choice under a mean budget of F of the layers (0 to 1)",
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")
    _add_cost(parser)
    parser.add_argument("--csv", action="store_true", help="print the rows as CSV instead of tables")


def add_figures(commands: Any) -> None:
    """Adds `oracle figures`."""
    about = "Draw the figures of stored runs again, with their numbers as CSV; needs no model."
    parser = command(commands, "figures", _run_figures, about)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="run folders; several are compared too")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the pictures (default for one run: RUN/figures, or RUN/figures-METRIC-COST)",
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")
    _add_cost(parser)
    add_quiet(parser)


def _add_cost(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cost",
        metavar="COST",
        help="read the run by other costs than its own: layers, or a file of 'oracle profile --out' (FILE:flops or "
        "FILE:ms chooses)",
    )


def _run_query(arguments: argparse.Namespace) -> None:
    from oracle.cli.questions import ask
    from oracle.cli.rows import plain, show_csv

    if arguments.json and arguments.csv:
        raise InputError("one of --json and --csv is required, not both; leave one out")
    answer = ask(arguments)
    if arguments.json:
        print(json.dumps(plain(answer.whole)))
    elif arguments.csv:
        show_csv(answer.columns, answer.rows)
    else:
        answer.show()


def _run_figures(arguments: argparse.Namespace) -> None:
    from analysis.plots.source import Source
    from oracle.draw import draw_runs
    from oracle.utils.progress import silent, terminal

    if arguments.out is None and len(arguments.folders) > 1:
        raise InputError("several runs need --out, a folder for their pictures")
    named = ("figures", arguments.criterion, arguments.cost and Path(arguments.cost).name.replace(":", "-"))
    out = arguments.out or arguments.folders[0] / "-".join(filter(None, named))
    options = {"criterion": arguments.criterion, "costs": arguments.cost}
    sources = [Source.open(folder, **options) for folder in arguments.folders]
    seen = sys.stderr.isatty() and not arguments.quiet
    pictures = draw_runs(sources, out, watch=terminal if seen else silent)
    files = [str(path) for picture in pictures for path in picture.files]
    skipped = {picture.name: picture.skipped for picture in pictures if picture.skipped}
    if arguments.json:
        print(json.dumps({"figures": files, "skipped": skipped}))
        return
    print("\n".join(files))
    for name, why in skipped.items():
        print(f"{printable(name)}: {printable(why)}", file=sys.stderr)
