"""`oracle compare`: practical controllers against a run's oracle."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, command, loading, progress
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.cli.tables import Table
    from oracle.controllers import Comparison

__all__ = ["add_compare"]

EPILOG = """\
controllers:
  full         every layer
  static       the single mask that is best on a training split, at each of several budgets
  oracle       the allocation the run found per sequence (has seen the references: an upper bound)
  unified      layers at equal intervals, and the last (below 2x the first ones, and the last); zero-shot,
               published with fine-tuning
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

QUALITIES = ("quality", "static", "oracle", "null", "mixed")
"""Qualities of the terminal table: the controller's, and what it is compared with."""

SPEEDS = (1, 8, 32)
"""Batch sizes of the speed-ups; those that were not measured have no column."""


def add_compare(commands: Any) -> None:
    """Adds `oracle compare`."""
    parser = command(
        commands,
        "compare",
        _run_compare,
        "Compare practical controllers with a run's oracle: quality, layers, headroom captured, measured speed.",
        tables=True,
    )
    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--controllers", default="all", metavar="NAMES", help="all, or names separated by commas")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="maximum number of sequences, evenly spread")
    parser.add_argument("--no-timing", action="store_true", help="do not measure tokens per second")
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_compare(arguments: argparse.Namespace) -> None:
    if arguments.limit < 2:
        raise InputError(f"--limit needs at least 2, not {arguments.limit}")
    how = loading(arguments)

    from oracle.cli.formats import give
    from oracle.controllers import compare_run
    from oracle.store import Run

    found = compare_run(
        arguments.folder,
        controllers=arguments.controllers,
        limit=arguments.limit,
        timed=not arguments.no_timing,
        watch=progress(arguments),
        **how,
    )
    tables = _tables(found)

    def whole() -> dict[str, Any]:
        about = {"metric": found.metric, "sequences": found.sequences, "controllers": tables[0].rows}
        paths = {"path": str(found.path), "fuller": None if found.fuller is None else str(found.fuller)}
        return {**about, "findings": found.findings, "left_out": found.left_out, **paths}

    give(arguments, tables, whole=whole, show=lambda: _show(found, tables), run=Run.open(arguments.folder))


def _tables(found: "Comparison") -> list["Table"]:
    """One row per controller and setting; one per mask, if controllers choose one."""
    from analysis.formatting import FEW, counted, interval_name
    from oracle.cli.tables import Table, decimal, qualities, shares, words

    rows = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    named = [words("controller", "controller"), words("setting", "setting")]
    columns = [
        *named,
        shares("fraction", "executed_fraction"),
        *(qualities(name, name if name == "quality" else f"{name}_quality") for name in QUALITIES),
        *(shares(name.removeprefix("captured_"), name) for name in ("captured", "captured_low", "captured_high")),
        shares("FLOPs", "flops_fraction"),
        *(
            decimal(f"x{batch}", f"speedup_{batch}", 2)
            for batch in SPEEDS
            if found.rows[f"speedup_{batch}"].notna().any()
        ),
    ]
    notes = [f"{counted(found.sequences)}, quality by {found.metric}; captured is empty where the oracle adds nothing."]
    if found.sequences < FEW:
        notes.append(f"low and high: {interval_name(found.sequences)}; they tell nothing clearly.")
    if {"unified", "skipdecode"} & set(found.rows["controller"]):
        notes.append("unified and skipdecode are zero-shot: their published numbers are of models trained for them.")
    fields = list(found.rows.columns)
    tables = [Table(name="controllers", rows=rows, columns=columns, fields=fields, notes=notes)]
    if masks := [row for row in rows if isinstance(row["layers"], str)]:
        fields = ["controller", "setting", "layers"]
        tables.append(Table(name="masks", rows=masks, columns=[*named, words("layers", "layers")], fields=fields))
    return tables


def _show(found: "Comparison", tables: Sequence["Table"]) -> None:
    from analysis.formatting import between, counted, interval_text, signed
    from oracle.cli.tables import show_line, show_table

    for place, table in enumerate(tables):
        if place:
            show_line("")
        show_table(table)
    for note in tables[0].notes:
        show_line(note)
    if found.left_out:
        show_line(f"Left out because they act on whole layers: {', '.join(found.left_out)}.")
    for one in found.findings:
        ends = between(one["low"], one["high"], signed, word="to")
        interval = f" ({interval_text(one['sequences'], ends)})" if ends else ""
        alphas = ", ".join(f"{alpha:g}" for alpha in one["alphas"])
        show_line(
            f"Gates, {one['shape']}, {one['decision']}: hidden states add {signed(one['difference'])} {found.metric} "
            f"to a fixed input at equal fraction{interval}; {counted(one['sequences'])}, "
            f"{counted(one['steps'], 'training step')}, "
            f"alpha {alphas}, one seed."
        )
    show_line(f"Written: {found.path}")
    if found.fuller is not None:
        show_line(f"Figures and reports show an earlier comparison of more sequences or controllers: {found.fuller}")
