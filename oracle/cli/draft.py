"""`oracle draft`: how far skip masks get as drafts of their own full model, and how far any mask could."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import (
    Parser,
    Settings,
    add_device,
    add_quiet,
    add_trust,
    command,
    loading,
    progress,
)
from oracle.cli.static import add_run_or_data, check_run_or_data, full_model_run, outputs_kept
from oracle.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from oracle.cli.tables import Table
    from oracle.draft import DraftStudy

__all__ = ["add_draft"]

EPILOG = """\
A mask drafts tokens on the full model's keys and values of what is verified; one pass of the full model verifies them,
so that the output is the full model's, token for token. Acceptance is computed from the full model's known output.

masks:
  best per sequence, per task, overall   the best found, chosen on the sequences that they are judged on
  swift         random search with a Bayesian step every 25th, by agreement on 50 output tokens (code)
  draft-verify  Bayesian optimisation over attentions and MLPs of the expected tokens/s (our Gaussian process)
  clasp         CLaSp's dynamic program, anew at every verified prefix; the share of skipped layers from the other half
  knapspec      knapsack over attentions and MLPs by latency; chosen once, after the prompt
  early-exit    the first layers
  unified       layers at equal intervals, and the last; of more than half, the first ones and the last
  static        the best mask of all that were tried without this half, and of a search over layers
Except for clasp and knapspec, which need no data, masks and draft lengths come from one half of the sequences and are
judged on the other.

bounds: every mask of up to K whole layers is tested at every verified prefix (--prove masks per prefix). No mask within
the budget does better, whatever decides how much each round drafts. Masks of single attentions and MLPs are not
enumerated. Beyond the budget the only proven bound is that all that is drafted is accepted.
"""

FORMS = ("swift", "draft-verify")


def add_draft(commands: Any) -> None:
    """Adds `oracle draft`."""
    command(
        commands,
        "draft",
        _run_draft,
        "Self-speculative decoding: the best masks to draft with, what practical methods reach, and proven bounds.",
        _add_draft_options,
        tables=True,
        config=True,
    )


def _add_draft_options(parser: Parser) -> None:
    from oracle.draft.plan import METHODS, Plan

    parser.epilog = EPILOG
    add_run_or_data(parser)
    plan = Plan()
    how = parser.add_argument_group("drafts")
    how.add_argument("--methods", default=",".join(METHODS), metavar="NAMES", help="methods, separated by commas")
    how.add_argument("--length", type=int, default=plan.length, metavar="N", help="maximum draft length, in tokens")
    how.add_argument(
        "--prove",
        type=int,
        default=plan.prove,
        metavar="N",
        help="masks tested per verified prefix for bounds; 0: none",
    )
    how.add_argument(
        "--evaluations", type=int, default=plan.evaluations, metavar="N", help="masks that each search evaluates"
    )
    how.add_argument("--limit", type=int, metavar="N", help="maximum number of sequences, evenly spread")
    how.add_argument("--seed", type=int, default=plan.seed, help="seed of the halves and the searches")
    how.add_argument("--no-timing", action="store_true", help="do not decode with drafts: no measured speed, no check")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="also write the skipped attention and MLP ids of each mask as JSON, as Draft & Verify and SWIFT read them",
    )
    settings = Settings(parser)
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_draft(arguments: argparse.Namespace) -> None:
    from oracle.draft.plan import Plan

    check_run_or_data(arguments)
    plan = Plan(
        methods=tuple(name.strip() for name in arguments.methods.split(",") if name.strip()),
        length=arguments.length,
        prove=arguments.prove,
        evaluations=arguments.evaluations,
        limit=arguments.limit,
        seed=arguments.seed,
        timed=not arguments.no_timing,
    )
    how = loading(arguments)
    if arguments.export is not None and arguments.export.exists():
        raise InputError(f"'{arguments.export}' already exists; choose another --export or delete it")

    from analysis.drafting import bound_summary, draft_summary
    from oracle.cli.formats import give
    from oracle.cli.tables import of_records, show_line
    from oracle.draft import find_drafts
    from oracle.draft.export import write_layer_ids
    from oracle.pipeline.reload import model_of
    from oracle.store import Run

    folder = arguments.folder or full_model_run(arguments, "draft")
    run, watch = Run.open(folder), progress(arguments)
    with outputs_kept(arguments, folder):
        found = find_drafts(folder, plan, load=lambda: model_of(run, **how), watch=watch)
    if arguments.export is not None:
        write_layer_ids(found, arguments.export, str(run.manifest["model"].get("id")))
    summary = draft_summary(found.rows, seed=plan.seed)
    bounds = bound_summary(found.bounds)
    tables = [_choices(summary), *([_bounds(bounds)] if len(bounds) else [])]

    def whole() -> dict[str, Any]:
        about = ("plan", "layers", "times", "left_out", "notes", "nothing_to_draft")
        return {
            "choices": summary.to_dict("records"),
            "bounds": bounds.to_dict("records"),
            "rows": found.rows.to_dict("records"),
            "sequence_bounds": found.bounds.to_dict("records"),
            **{name: found.about[name] for name in about},
            "path": str(found.path),
            "run": str(folder),
        }

    def show() -> None:
        _show(found, summary, bounds, tables)
        if arguments.export is not None:
            show_line(f"Layer ids: {arguments.export}")

    rows = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    detail = of_records("sequences", rows, list(found.rows.columns))
    give(arguments, tables, whole=whole, show=show, detail=detail, run=run)


def _choices(summary: "pd.DataFrame") -> "Table":
    """One row per mask or method."""
    from analysis.formatting import decimals, interval_name
    from oracle.cli.tables import Column, Row, Table, decimal, interval, shares, words

    def rate(name: str) -> Column:
        def text(row: Row) -> str:
            return f"{row[name]:.1f} ({row[f'{name}_speedup']:.2f}x)"

        return Column(heading=f"{name}, tokens/s", text=text)

    def equal(row: Row) -> str:
        return f"{row['equal']:.0f} of {row['sequences']:.0f}"

    measured = [rate("measured"), Column(heading="equal", text=equal)] if summary["measured"].notna().all() else []
    columns = [
        words("mask", "choice"),
        shares("draft cost", "draft_cost"),
        decimal("length", "draft_length", 1),
        shares("1st token", "first"),
        interval("accepted", "accepted", partial(decimals, places=2)),
        rate("expected"),
        *measured,
        Column(heading="pays below", text=lambda row: _cost(row["pays_below"])),
        Column(heading="flat", text=lambda row: _cost(row["pays_below_flat"])),
    ]
    rows = [{str(name): value for name, value in row.items()} for row in summary.to_dict("records")]
    name = interval_name(int(summary["sequences"].iloc[0]))
    note = (
        "draft cost: of a draft token, in plain tokens. 1st token: verified prefixes at which the first draft token is "
        f"accepted. accepted: draft tokens per round ({name}, over sequences). expected, measured: tokens/s, and "
        "over plain decoding. pays below: draft cost at which drafting is as fast as plain decoding here; flat: where "
        "verifying costs one token."
    )
    return Table(name="masks", rows=rows, columns=columns, notes=[note])


def _bounds(bounds: "pd.DataFrame") -> "Table":
    """One row per number of layers."""
    from oracle.cli.tables import Column, Table, counts, decimal, shares

    columns = [
        Column(heading="layers", text=lambda row: f"at most {row['budget']:.0f}"),
        counts("masks", "masks"),
        shares("1st token", "first"),
        shares("1st, mask per prefix", "first_any"),
        decimal("accepted", "accepted", 2),
        Column(heading="expected", text=lambda row: f"{row['speedup']:.2f}x"),
    ]
    rows = [{str(name): value for name, value in row.items()} for row in bounds.to_dict("records")]
    return Table(name="bounds", rows=rows, columns=columns)


def _show(found: "DraftStudy", summary: "pd.DataFrame", bounds: "pd.DataFrame", tables: Sequence["Table"]) -> None:
    from analysis.formatting import counted
    from oracle.cli.tables import show_line, show_table

    about, sequences = found.about, int(summary["sequences"].iloc[0])
    times = about["times"]
    plain, length = times["verify"][0], about["plan"]["length"]
    verified = times["verify"][min(length, 4)] / plain
    show_line(
        f"{counted(sequences)}, {counted(about['layers'], 'layer')}, drafts of at most {counted(length, 'token')}. A "
        f"plain token takes {plain:.1f} ms; verifying {min(length, 4) + 1} tokens at once costs {verified:.2f} of it"
    )
    measured = summary["measured"].notna().all()
    show_table(tables[0])
    for note in tables[0].notes:
        show_line(note)
    if measured:
        differ, settled = int(sequences * len(summary) - summary["equal"].sum()), int(summary["settled"].sum())
        outputs = f"{counted(differ, 'output')} {'is' if differ == 1 else 'are'} NOT the full model's"
        said = outputs if differ else "every output is the full model's"
        ties = f"{counted(settled, 'near-tie')} of verification settled by plain decoding"
        show_line(f"Decoded with drafts: {said}; {ties}.")
    _show_bounds(bounds, summary, sequences, tables)
    for name, reason in about["left_out"].items():
        show_line(f"{name} is left out: {reason}")
    for line in about["notes"]:
        show_line(line)
    if about["nothing_to_draft"]:
        more = len(about["nothing_to_draft"])
        show_line(f"{counted(more, 'more output')} {'has' if more == 1 else 'have'} one token, and nothing to draft.")
    show_line(f"Written: {found.path}")


def _show_bounds(bounds: "pd.DataFrame", summary: "pd.DataFrame", sequences: int, tables: Sequence["Table"]) -> None:
    from analysis.formatting import counted
    from oracle.cli.tables import show_line, show_table

    if bounds.empty:
        show_line("No sequence has a proven bound: --prove is too small for a budget.")
        return
    last = bounds.iloc[-1]
    show_line(
        f"Proven for {last['sequences']:.0f} of {counted(sequences)}, by enumeration at every verified prefix; upper "
        "bounds for masks of whole layers:"
    )
    show_table(tables[1])
    best = summary["expected_speedup"].iloc[0]
    show_line(
        f"Whatever its layers, no single mask per sequence exceeds {last['speedup_any']:.2f}x under the cost model "
        f"(above {last['budget']:.0f} layers this assumes that all drafts are accepted); the best found reach "
        f"{best:.2f}x."
    )


def _cost(value: float) -> str:
    if value != value:
        return ""
    return "never" if value <= 0 else f"{100 * value:.0f} %"
