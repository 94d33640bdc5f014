"""`oracle compare`: practical controllers against a run's oracle."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, check_format, command, loading, progress
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.controllers import Comparison

__all__ = ["add_compare"]

EPILOG = """\
controllers:
  full         every layer
  static       the single mask that is best on a training split, at each of several budgets
  oracle       the allocation the run found per sequence (has seen the references: an upper bound)
  unified      evenly spread layers for a target speed-up; zero-shot, published with fine-tuning
  early-exit   the first layers
  random       one random mask per prompt
  skipdecode   fewer layers for later tokens, the uppermost ones; zero-shot, published with training
  d3           fewer layers for later tokens, the first and the last ones
  influence    all but the layers that change the hidden state least; last=raw: before the final norm, as in the
               paper's equation; last=normed: after it, as in the released code
  evopress     EvoPress's evolution of one mask, by KL divergence from the full model on the training part
  swift        SWIFT's random search with a Bayesian step, by agreement on 50 tokens; theirs drafts, this is lossy
  clasp        per prompt, the mask whose hidden state at the last token stays closest to the full model's
  clasp-window as clasp, over the last 8 tokens and all budgets: our variant, expensive
  knapspec     per prompt, KnapSpec's knapsack, with weights from FLOPs; theirs drafts, this is lossy
  confidence   per token, exits once the vocabulary head is confident: gap of probabilities, or the highest one
  entropy      per token, exits once the entropy of the vocabulary head is low
  adainfer     per token, exits when a classifier of gap and top probability says so: svm as published, or regression
  ridge        per prompt, a mask from a small code book, by ridge regression on hidden states
  router       as ridge, by a small network
  drllm        per prompt, a small network at each layer, from the prompt's states (Dr.LLM as described); no repeats
  drllm-forward  the same networks at every forward, as released
  first        per prompt, a linear router per layer, decided when the prompt is read (FiRST), without LoRA repair
  flexidepth   per token, a router per layer of the second half, and an adapter where it skips; keys and values kept
  gate-hidden  per token, a small network at each layer decides from the hidden state; decision=sample as released
  gate-fixed   as gate-hidden, on a fixed input: the control

Learned controllers are evaluated on sequences they were not trained on.
columns: quality by the run's criterion, then at the same executed fraction: the best static mask, the oracle, the
oracle against shuffled references (null) and the best random mixture of static masks (mixed). captured is the share
of the gap from the static mask to the oracle, with its 95 % interval over sequences. x1, x8, x32: measured speed-up
over the full model at these batch sizes, over the first 8 tokens of an output.
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
"""Columns of the terminal table -> their headings."""


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
    parser.add_argument("--controllers", default="all", metavar="NAMES", help="all, or names separated by commas")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="maximum number of sequences, evenly spread")
    parser.add_argument("--no-timing", action="store_true", help="do not measure tokens per second")
    parser.add_argument("--csv", action="store_true", help="print the rows as CSV instead of a table")
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_compare(arguments: argparse.Namespace) -> None:
    from oracle.cli.tables import plain, show_csv

    check_format(arguments)
    if arguments.limit < 2:
        raise InputError(f"--limit needs at least 2, not {arguments.limit}")
    how = loading(arguments)

    from oracle.controllers import compare_run

    found = compare_run(
        arguments.folder,
        controllers=arguments.controllers,
        limit=arguments.limit,
        timed=not arguments.no_timing,
        watch=progress(arguments),
        **how,
    )
    rows = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    if arguments.json:
        whole = {"metric": found.metric, "sequences": found.sequences, "controllers": rows, "findings": found.findings}
        paths = {"path": str(found.path), "fuller": None if found.fuller is None else str(found.fuller)}
        print(json.dumps(plain({**whole, "left_out": found.left_out, **paths})))
    elif arguments.csv:
        show_csv(list(found.rows.columns), rows)
    else:
        _show(found)


def _show(found: "Comparison") -> None:
    from oracle.cli.tables import plain, show_line, show_rows

    records = found.rows.to_dict("records")
    rows = [{heading: plain(row[name]) for name, heading in SHOWN.items()} for row in records]
    show_rows(list(SHOWN.values()), rows)
    named = ["controller", "setting", "layers"]
    if masks := [{name: row[name] for name in named} for row in records if isinstance(row["layers"], str)]:
        show_line("")
        show_rows(named, masks)
    show_line(
        f"{found.sequences} sequences, quality by {found.metric}; captured is empty where the oracle adds nothing."
    )
    if {"unified", "skipdecode"} & set(found.rows["controller"]):
        show_line("unified and skipdecode are zero-shot: their published numbers are of models trained for them.")
    if found.left_out:
        show_line(f"Left out because they act on whole layers: {', '.join(found.left_out)}.")
    for one in found.findings:
        interval = "" if one["low"] is None else f" (95 % interval {one['low']:+.3f} to {one['high']:+.3f})"
        alphas = ", ".join(f"{alpha:g}" for alpha in one["alphas"])
        show_line(
            f"Gates, {one['shape']}, {one['decision']}: hidden states add {one['difference']:+.3f} {found.metric} to a "
            f"fixed input at equal fraction{interval}; {one['sequences']} sequences, {one['steps']} training steps, "
            f"alpha {alphas}, one seed."
        )
    show_line(f"Written: {found.path}")
    if found.fuller is not None:
        show_line(f"Figures and reports show an earlier comparison of more sequences or controllers: {found.fuller}")
