"""`oracle query`: queries on a stored run. Needs no model."""

import argparse
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_view, command

__all__ = ["add_query"]

EXAMPLES = """\
examples:
  oracle query runs/demo                        minimal budget per sequence, and the number proven
  oracle query runs/demo --sequence facts-001   one sequence: its frontier and outputs
  oracle query runs/demo --at-most 0.3          sequences that need at most 30 % of the layers
  oracle query runs/demo --by-task --csv        means per task, for a spreadsheet
  oracle query runs/demo --summary --latex      headline and tasks, for a paper
  oracle query runs/demo --kept 0.5 0.75        quality kept at mean budgets, answers that change, by every method
  oracle query runs/demo --allocations 10       the allocations that serve the most sequences
  oracle query runs/demo --against runs/demo-2  the same sequences in another run
  oracle query runs/demo --sql "SELECT task, avg(fraction) FROM minimal_budgets JOIN sequences USING (sequence)
                                GROUP BY task"

views for --sql (DuckDB, read-only, without access to files or network):
  sequences        sequence, task, prompt, "references" (or reference_texts, which needs no quotes), choices,
                   answer, prompt_tokens, rendered, prompt_ids,
                   choice_tokens, reference_tokens (of the longest, where likelihoods are scored), and messages
                   in runs with conversations
  evaluations      sequence, number (0: the full model), family, allocation, cost, fraction, tokens, text, finished,
                   margin, rerun, dropped, and one column per metric
  frontiers        sequence, cost, fraction, quality, number, family, allocation, text: allocations better than all
                   cheaper ones
  minimal_budgets  sequence, upper (printed as budget), lower (at least), certified, proof, fraction, allocation
                   (layers that run), family, number, quality, full_quality (full), zero_quality, vacuous (why it tells
                   nothing, or empty), informative: available once the search has ended
  tasks            task, sequences, full_quality, fraction (minimal budget), fraction_informative (of those that tell),
                   fraction_of_others (headline without it), informative, zero_quality, vacuous, certified: means and
                   numbers per task, once the search has ended
  controllers      the columns of 'oracle compare --csv', once it has run
  measures         measure (similarity, features, throughput), and the columns of each table of 'oracle measure',
                   once it has run
"""


def add_query(commands: Any) -> None:
    """Adds `oracle query`."""
    about = "Query the minimal budgets of a stored run; needs no model."
    parser = command(commands, "query", _run_query, about, tables=True)
    parser.epilog, parser.stray = EXAMPLES, "--sequence"
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    questions = parser.add_argument_group("queries (default: the minimal budget per sequence)")
    one = questions.add_mutually_exclusive_group()
    one.add_argument("--sequence", metavar="ID", help="one sequence: its frontier and outputs")
    one.add_argument(
        "--at-most", type=float, metavar="F", help="sequences that need at most the fraction F of the layers (0 to 1)"
    )
    one.add_argument("--by-task", action="store_true", help="means per task")
    one.add_argument("--summary", action="store_true", help="what the search printed at its end: headline and tasks")
    one.add_argument(
        "--allocations", type=int, metavar="N", help="the N allocations that meet the criterion on the most sequences"
    )
    one.add_argument("--against", type=Path, metavar="RUN", help="compare with another run, sequence by sequence")
    one.add_argument("--sql", metavar="SELECT", help="any SELECT over the views listed below")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="F",
        help="the oracle's choice over all sequences under a mean budget of the fraction F of the layers (0 to 1); "
        "with --sequence, its allocations of at most F; 'oracle static' and 'oracle export' take numbers of layers",
    )
    parser.add_argument(
        "--kept",
        type=float,
        nargs="*",
        metavar="F",
        help="quality kept, and right answers that turn wrong and back, by the oracle at mean budgets of F, by the "
        "controllers of 'oracle compare' and the masks of 'oracle static'; with --by-task also per task "
        "(default of F: 0.25 0.5 0.75 0.9)",
    )
    add_view(parser)
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="time limit of --sql")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="memory limit of --sql, in MiB")


def _run_query(arguments: argparse.Namespace) -> None:
    from oracle.cli.formats import give
    from oracle.cli.query_answers import ask, show_sql
    from oracle.store import Run

    if arguments.sql is not None:
        show_sql(arguments)
        return
    answer = ask(arguments)
    run = Run.open(arguments.folder)
    give(arguments, answer.tables, whole=lambda: answer.whole, show=answer.show, run=run, notes=answer.notes)
