"""`oracle compare`: what practical controllers make of a run, beside its oracle."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, command, loading
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.controllers import Comparison

__all__ = ["add_compare"]

EPILOG = """\
controllers:
  full         every layer
  static       the one mask that is best on a training part, at each of several budgets
  oracle       what the run found for each sequence (it has seen them: the upper end)
  unified      evenly spread layers for a target speed-up
  early-exit   the first layers
  random       a mask drawn for each prompt
  d3           the later a token, the fewer layers
  influence    without the layers that change the hidden state least
  clasp        for each prompt the mask whose states stay closest to the full model's
  confidence   a token leaves once the vocabulary head is sure: gap of probabilities, or entropy
  adainfer     a token leaves once a classifier of gap and top probability says so
  ridge        a mask for each prompt out of a small code book, by ridge regression on its states
  router       the same by a small network
  gate-hidden  a small network beside each layer decides for each token, by its hidden state
  gate-fixed   the same networks on a fixed input: the control

what learns is trained on some sequences and judged by others.
columns: quality by the run's criterion; beside it at the same executed fraction the best static mask, the oracle, the
oracle against shuffled references (null) and the best mixture of static masks by a coin (mixed). captured is the share
of the way from the static mask to the oracle, with its 95 % interval over sequences. x1, x8, x32: measured speed-up
over the full model at these batches, over the first 8 tokens of an output.
"""

SHOWN = {
    "controller": "controller",
    "setting": "setting",
    "executed_fraction": "fraction",
    "quality": "quality",
    "static_quality": "static",
    "oracle_quality": "oracle",
    "null_quality": "null",
    "mixed_quality": "mixed",
    "captured": "captured",
    "captured_low": "low",
    "captured_high": "high",
    "flops_fraction": "FLOPs",
    "speedup_1": "x1",
    "speedup_8": "x8",
    "speedup_32": "x32",
}
"""Columns of the table on the terminal, and their headings."""


def add_compare(commands: Any) -> None:
    """Adds `oracle compare`."""
    parser = command(
        commands,
        "compare",
        _run_compare,
        "Compare practical controllers with a run's oracle: quality, layers, headroom captured, measured speed.",
    )
    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--controllers", default="all", metavar="NAMES", help="all, or names with commas between them")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="sequences at most, spread evenly")
    parser.add_argument("--no-timing", action="store_true", help="measure no tokens a second")
    parser.add_argument("--csv", action="store_true", help="print the rows as CSV instead of a table")
    settings = Settings(parser)
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_compare(arguments: argparse.Namespace) -> None:
    from oracle.cli.tables import plain, show_csv
    from oracle.utils.progress import silent, terminal

    if arguments.json and arguments.csv:
        raise InputError("one of --json and --csv is required, not both; leave one out")
    if arguments.limit < 2:
        raise InputError(f"--limit needs at least 2, not {arguments.limit}")

    how = loading(arguments)

    from oracle.controllers import compare_run

    found = compare_run(
        arguments.folder,
        controllers=arguments.controllers,
        limit=arguments.limit,
        timed=not arguments.no_timing,
        watch=silent if arguments.quiet else terminal,
        **how,
    )
    rows = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    if arguments.json:
        whole = {"metric": found.metric, "sequences": found.sequences, "controllers": rows, "findings": found.findings}
        print(json.dumps(plain({**whole, "left_out": found.left_out, "path": str(found.path)})))
    elif arguments.csv:
        show_csv(list(found.rows.columns), rows)
    else:
        _show(found)


def _show(found: "Comparison") -> None:
    from oracle.cli.tables import show_line, show_rows

    rows = [{heading: _cell(row[name]) for name, heading in SHOWN.items()} for row in found.rows.to_dict("records")]
    show_rows(list(SHOWN.values()), rows)
    show_line(
        f"{found.sequences} sequences, quality by {found.metric}; captured is empty where the oracle adds nothing."
    )
    if found.left_out:
        show_line(f"Left out, for they decide about whole layers: {', '.join(found.left_out)}.")
    for one in found.findings:
        interval = "" if one["low"] is None else f" (95 % interval {one['low']:+.3f} to {one['high']:+.3f})"
        show_line(
            f"Gates, {one['shape']}: hidden states add {one['difference']:+.3f} {found.metric} to a fixed input at "
            f"equal fraction{interval}."
        )
    show_line(f"Written: {found.path}")


def _cell(value: Any) -> Any:
    """What a table shows: nothing for what is missing."""
    return None if isinstance(value, float) and value != value else value
