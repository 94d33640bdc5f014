"""`oracle static`: one mask for a whole data set, at each budget."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from oracle.cli.data_options import (
    DATA,
    add_columns,
    add_extract,
    add_presets,
    add_reading,
    add_tasks,
    given_settings,
)
from oracle.cli.parsing import (
    LOADING,
    Parser,
    Settings,
    add_device,
    add_prompt,
    add_quiet,
    add_trust,
    command,
    loading,
    progress,
)
from oracle.errors import InputError
from oracle.utils.option_names import OPTIONS

if TYPE_CHECKING:
    from oracle.cli.tables import Table
    from oracle.static import StaticCurve
    from oracle.store import Run

__all__ = ["add_run_or_data", "add_static", "check_run_or_data", "full_model_run", "outputs_kept"]

EPILOG = """\
methods (the mask of highest value on the training part is chosen at each budget):
  unified    layers at equal intervals, and the last (Unified Layer Skipping; of more than half of the layers these
             are the first ones, and the last); zero-shot, published with fine-tuning
  influence  all but the layers that change the hidden state least (ShortGPT)
  greedy     drops one layer at a time, the one whose loss is least
  evolution  EvoPress: switches layers, selects on growing samples
  surrogate  a Gaussian process over all masks evaluated so far proposes the next ones

All numbers after the methods' names are from held-out sequences, with 95 % intervals. `ahead` is the objective of the
chosen mask minus that of the method's, paired over sequences. Deploy a mask with
oracle export RUN --format checkpoint --allocation LAYERS, or --budget B for the chosen one.
"""

OF_PLANS = {"evaluations", "limit", "prove", "seed"}
"""Options of `oracle static` and `oracle draft` themselves that are named as settings of a search."""

FULL_MODEL = {"strategy": "spread", "evaluations": 1, "prove": 0}
"""A search that stores the full model's outputs only."""


def add_static(commands: Any) -> None:
    """Adds `oracle static`."""
    command(
        commands,
        "static",
        _run_static,
        "Find the best single mask for all sequences at each budget, and judge it on held-out ones.",
        _add_static_options,
        tables=True,
        config=True,
    )


def _add_static_options(parser: Parser) -> None:
    from oracle.static.plan import JUDGES, METHOD_NAMES, Plan

    parser.epilog = EPILOG
    new = add_run_or_data(parser)
    new.add("--scope", help="decode, decode-last or sequence, as in oracle search")
    new.add("--unit", help="layer or sublayer")
    new.add("--cost", help="layers, flops, latency or a file of costs")
    plan = Plan()
    how = parser.add_argument_group("masks")
    how.add_argument(
        "--budget",
        type=float,
        action="append",
        default=[],
        metavar="COST",
        help="cost per generated token, in layers or the run's unit of cost, not a fraction; repeatable (default: a "
        "curve)",
    )
    how.add_argument(
        "--speedup",
        type=float,
        action="append",
        default=[],
        metavar="X",
        help="the full model's cost over X; repeatable",
    )
    how.add_argument(
        "--by", default=plan.judge, metavar="WHAT", help=f"objective on the training part: {' or '.join(JUDGES)}"
    )
    how.add_argument("--methods", default=",".join(METHOD_NAMES), metavar="NAMES", help="methods, separated by commas")
    how.add_argument(
        "--evaluations",
        type=int,
        default=plan.evaluations,
        metavar="N",
        help="masks per budget, for evolution and surrogate",
    )
    how.add_argument(
        "--training", type=float, default=plan.training, metavar="SHARE", help="share of the sequences to train on"
    )
    how.add_argument("--limit", type=int, metavar="N", help="maximum number of sequences, evenly spread")
    how.add_argument("--seed", type=int, default=plan.seed, help="seed of the split and the methods")
    how.add_argument("--no-timing", action="store_true", help="do not measure tokens per second")
    settings = Settings(parser)
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_static(arguments: argparse.Namespace) -> None:
    from oracle.static.plan import Plan

    check_run_or_data(arguments)
    plan = Plan(
        judge=arguments.by,
        methods=tuple(name.strip() for name in arguments.methods.split(",") if name.strip()),
        budgets=tuple(arguments.budget),
        speedups=tuple(arguments.speedup),
        evaluations=arguments.evaluations,
        training=arguments.training,
        limit=arguments.limit,
        seed=arguments.seed,
        timed=not arguments.no_timing,
    )
    how = loading(arguments)

    from oracle.cli.formats import give
    from oracle.pipeline.reload import model_of
    from oracle.static import find_static
    from oracle.store import Run

    folder = arguments.folder or full_model_run(arguments, "static")
    run, watch = Run.open(folder), progress(arguments)
    with outputs_kept(arguments, folder):
        found = find_static(folder, plan, load=lambda: model_of(run, **how), watch=watch)
    table = _table(found)

    def whole() -> dict[str, Any]:
        parts = {"training": list(found.training), "held_out": list(found.held_out)}
        about = {"metric": found.metric, "by": found.judge, "measure": found.measure, "rows": table.rows, **parts}
        about["scope"] = run.manifest["config"]["scope"]
        return {**about, "path": str(found.path), "run": str(folder)}

    give(arguments, [table], whole=whole, show=lambda: _show(found, table, run), run=run)


def add_run_or_data(parser: Parser) -> Settings:
    """Adds a RUN, and the group of options for `full_model_run` without one, which is returned."""
    from oracle.config import SearchConfig

    parser.add_argument("folder", type=Path, nargs="?", metavar="RUN", help="run folder")
    new = Settings(parser.add_argument_group("without a run: data to run the full model on first"), SearchConfig())
    new.add(
        "--data",
        help=f"{DATA}; or the bundled 'instruct'. References are needed, unless --criterion agreement asks for the "
        "full model's own outputs",
    )
    add_presets(new)
    new.add("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    new.add("--model", help="hub id, local folder, GGUF file, or the embedded model; with a RUN as in oracle measure")
    new.add("--criterion", metavar="METRIC", help="metric of quality")
    new.add("--max-new-tokens", type=int, help="maximum length of an output, in tokens")
    parser.add_argument("--out", type=Path, help="run folder to write with --data (default: a new one under runs/)")
    add_extract(new)
    add_columns(parser)
    add_reading(parser)
    add_tasks(parser)
    add_prompt(parser.add_argument_group("how prompts of --data are rendered"))
    return new


def check_run_or_data(arguments: argparse.Namespace) -> None:
    """Raises `InputError` unless exactly one of RUN and --data is given, without settings that a RUN has of its own."""
    from oracle.settings import flat_defaults

    data = getattr(arguments, "data", None)
    if arguments.folder is None:
        if data is None:
            raise InputError("either a RUN or --data is required, but neither is given; give one of them")
        return
    if data is not None:
        raise InputError(
            f"either a RUN or --data is required, but both are given ('{arguments.folder}' and '{data}'): the "
            "sequences of a RUN are its own; omit one of them"
        )
    own = flat_defaults().keys() - OF_PLANS - {*LOADING}
    given = [name for name, value in vars(arguments).items() if name in own or (name == "out" and value is not None)]
    if given:
        options = {name: option for option, name in OPTIONS.items()}
        named = ", ".join(f"--{options.get(name, name).replace('_', '-')}" for name in given)
        raise InputError(
            f"{named} is for data to run the full model on first, but '{arguments.folder}' is a run, whose data, "
            "prompts, criterion, scope and costs are its own; omit it, or search anew with it"
        )


def full_model_run(arguments: argparse.Namespace, command: str) -> Path:
    """A new run with the full model's outputs on the data, by default under the name of a command."""
    from oracle.cli.search import new_folder
    from oracle.config import SearchConfig
    from oracle.pipeline.run import run_search

    config = SearchConfig(**{**given_settings(arguments, SearchConfig()), **FULL_MODEL})
    out = arguments.out or new_folder(Path("runs") / command)
    run_search(config, out, watch=progress(arguments))
    return out


@contextmanager
def outputs_kept(arguments: argparse.Namespace, folder: Path) -> Iterator[None]:
    """Context in which errors name the run of `full_model_run`, so that its outputs are not computed again."""
    try:
        yield
    except InputError as error:
        if arguments.folder is not None:
            raise
        raise InputError(
            f"{error} (the full model's outputs are kept: name the run {quote(str(folder))} in place of --data and "
            "what goes with it)"
        ) from error


def _table(found: "StaticCurve") -> "Table":
    """One row per budget and method."""
    from analysis.formatting import FEW, counted, interval_name, number, quality
    from oracle.allocations import compact
    from oracle.cli.tables import Column, Table, counts, decimal, interval, shares

    rows = [
        {str(name): value.tolist() if name == "allocation" else value for name, value in row.items()}
        for row in found.rows.to_dict("records")
    ]
    ahead = interval("ahead", "ahead")
    columns = [
        Column(heading="method", text=lambda row: row["method"] + " *" * row["chosen"], is_number=False),
        Column(heading="budget", text=lambda row: number(row["budget"])),
        shares("fraction", "fraction"),
        interval(found.metric, "quality"),
        interval("KL", "kl"),
        Column(heading="ahead", text=lambda row: "" if row["chosen"] else ahead.text(row)),
        counts("pairs", "evaluations"),
        decimal("tokens/s", "tokens_per_second", 1),
        Column(heading="layers", text=lambda row: compact(row["allocation"]), is_number=False),
    ]
    held_out = len(found.held_out)
    ends = "95 % intervals" if held_out >= FEW else interval_name(held_out)
    note = (
        f"* chosen by {found.judge} on {counted(len(found.training), 'training sequence')}; {found.metric}, KL "
        f"(nats/token) and ahead on {held_out} held-out ones, {ends}. Full model: "
        f"{quality(found.rows['full_quality'].iloc[0])}. "
        "pairs: (mask, sequence) evaluations added by the method, all budgets."
        + (" unified is zero-shot: published with fine-tuning." if "unified" in set(found.rows["method"]) else "")
    )
    return Table(name="masks", rows=rows, columns=columns, fields=list(found.rows.columns), notes=[note])


OF_BUDGET = ("budget", "fraction", "tokens/s", "layers")
"""Headings of the whole table that stand above a budget's own on the terminal."""


def _show(found: "StaticCurve", table: "Table", run: "Run") -> None:
    from oracle.allocations import compact, strip
    from oracle.cli.tables import show_line, show_table

    units, scope = run.units, run.manifest["config"]["scope"]
    for budget in dict.fromkeys(row["budget"] for row in table.rows):
        rows = [row for row in table.rows if row["budget"] == budget]
        first = next(row for row in rows if row["chosen"])
        rate, full = first["tokens_per_second"], first["full_tokens_per_second"]
        speed = f"; {rate:.1f} tokens/s, full model {full:.1f} ({rate / full:.2f}x)" if rate == rate else ""
        show_line(
            f"Budget {budget:g} {found.measure} ({100 * first['fraction']:.0f} % of the full model's cost){speed}"
        )
        show_line(f"  {run.unit}s {compact(first['allocation'])}")
        dropped = [unit for unit in range(units) if unit not in first["allocation"]]
        show_line(f"  dropped {compact(dropped)}")
        show_line(f"  {strip(first['allocation'], units)}")
        shown = [column for column in table.columns if column.heading not in OF_BUDGET]
        show_table(replace(table, rows=rows, columns=shown))
    for note in table.notes:
        show_line(note)
    show_line(f"Written: {found.path}")
    if scope != "sequence":
        show_line(
            f"Scope {scope}: prompts run at full depth, as by oracle.apply. A checkpoint runs them with the same "
            "layers, so that its outputs are worse: choose masks for one by oracle static --data DATA --scope sequence"
        )
        return
    budget = min(row["budget"] for row in table.rows)
    if run.unit == "layer":
        show_line(f"Next: oracle export {quote(str(run.folder))} --format checkpoint --budget {budget:g} --out pruned")
