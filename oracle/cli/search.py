"""`oracle demo` and `oracle search`."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.cache import add_cache_options, open_store
from oracle.cli.config_file import add_config, config_run
from oracle.cli.data_options import DATA, add_columns, add_extract, add_presets, add_reading, add_tasks, given_settings
from oracle.cli.interrupts import stoppable
from oracle.cli.parsing import (
    Parser,
    Settings,
    add_device,
    add_dtype,
    add_prompt,
    add_quiet,
    add_trust,
    command,
    progress,
)
from oracle.cli.unfinished import note, note_older
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.loggers import Logger

__all__ = ["add_demo", "add_search", "new_folder", "search_parser"]

DEMO_SEQUENCES = 24

MAIN = "[--model MODEL] [--data DATA] [--limit N] [--criterion METRIC] [--evaluations N] [--out PATH]"
"""Options of `oracle search` that its usage line names: those that a first search needs."""


def add_demo(commands: Any) -> None:
    """Adds `oracle demo`."""
    command(
        commands,
        "demo",
        _run_demo,
        f"Search {DEMO_SEQUENCES} bundled sequences on the embedded model, verify and draw: the whole tool in minutes.",
        _add_demo_options,
        tables=True,
        config=True,
    )


def _add_demo_options(parser: Parser) -> None:
    from oracle.config import SearchConfig

    settings = Settings(parser, SearchConfig())
    settings.add("--seed", type=int, help="seed of every random choice")
    add_dtype(settings)
    add_device(settings)
    parser.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    _add_drawing(parser)
    add_cache_options(parser)
    add_quiet(parser)


def add_search(commands: Any) -> None:
    """Adds `oracle search`."""
    command(
        commands,
        "search",
        _run_search,
        "Search, per sequence, for the fewest layers whose output is as good as the full model's.",
        _add_search_options,
        tables=True,
    )


def _add_search_options(parser: Parser) -> None:
    from oracle.config import SearchConfig
    from oracle.search import STRATEGIES
    from oracle.utils.plugins import STRATEGIES as PLUGINS
    from oracle.utils.plugins import plugins

    width = max(map(len, STRATEGIES))
    lines = [f"  {name:{width}}  {strategy.hint}" for name, strategy in STRATEGIES.items()]
    parser.usage, parser.stray = f"%(prog)s {MAIN} [options]", "--data"
    lines += [f"  {name:{width}}  of an installed package ({one.value})" for name, one in plugins(PLUGINS).items()]
    parser.epilog = "\n".join(["strategies:", *lines])
    defaults = SearchConfig()
    parser.config_runs = True
    _add_data(Settings(parser.add_argument_group("what to search"), defaults))
    _add_goal(Settings(parser.add_argument_group("criterion and cost"), defaults))
    _add_effort(Settings(parser.add_argument_group("how to search"), defaults))
    _add_run(parser.add_argument_group("the run"))
    _add_machine(Settings(parser.add_argument_group("hardware and precision"), defaults))
    add_columns(parser)
    add_reading(parser)
    add_tasks(parser)
    add_prompt(parser.add_argument_group("how prompts are rendered (once per run; token ids are stored)"))
    add_quiet(parser)


def search_parser() -> Parser:
    """A parser of the options of `oracle search`."""
    parser = Parser(prog="oracle search")
    _add_search_options(parser)
    return parser


def _add_data(what: Settings) -> None:
    what.add("--model", help="hub id, local folder, GGUF file, or the embedded model")
    what.add("--data", help=f"{DATA}; or the bundled 'instruct'")
    add_presets(what)
    what.add("--limit", type=int, help="maximum number of sequences, spread evenly over the tasks")
    what.add("--tasks", nargs="+", metavar="TASK", help="only these tasks")


def _add_goal(goal: Settings) -> None:
    from oracle.metrics import METRICS

    goal.add(
        "--criterion",
        metavar="METRIC",
        help=f"metric that must not fall below the full model's: {', '.join(METRICS)}; of tasks lm-eval:METRIC or "
        "lm-eval:METRIC,FILTER, by default their first; MODULE:FUNCTION, a function (references, output, record) of "
        "your own that returns a number; or a metric of an installed package",
    )
    goal.add("--tolerance", type=float, help="allowed loss of quality, in units of the metric")
    goal.add("--metrics", nargs="+", metavar="METRIC", help="also compute these, which are computed on request")
    add_extract(goal)
    goal.add(
        "--scope",
        help="tokens that run the allocation. decode: generated ones (the first is the full model's, since the prompt "
        "runs at full depth); decode-last: the prompt's last token too; sequence: all",
    )
    goal.add("--unit", help="layer: allocations of whole layers; sublayer: attention and MLP separately, twice as many")
    goal.add(
        "--cost",
        help="cost to minimise: layers, flops, latency (measured now, on this machine), or a file of 'oracle profile "
        "--out' (FILE:flops or FILE:ms chooses if it holds both, ms by default)",
    )
    goal.add("--max-new-tokens", type=int, help="maximum length of an output, in tokens")
    stop = r"end outputs where this text first appears (\n for a new line), and score what precedes it; repeatable"
    goal.add("--stop", action="append", metavar="TEXT", help=stop)
    plain = (
        "plain greedy decoding: leave out the penalties, forced tokens and the like of the model's generation_config"
    )
    goal.add("--no-generation-config", dest="generation_config", action="store_false", help=plain)


def _add_effort(how: Settings) -> None:
    how.add("--strategy", metavar="NAME", help="how allocations are chosen: listed below")
    how.add("--evaluations", type=int, help="maximum number of allocations evaluated per sequence")
    how.add("--seconds", type=float, help="time limit per sequence, in seconds")
    how.add(
        "--layer-executions",
        type=int,
        metavar="UNITS",
        help="maximum layer x token units per sequence, counted as if each output were decoded alone",
    )
    how.add("--paths", action="store_true", help="let the mcts strategies repeat layers (needs --scope sequence)")
    study = "store the trials of optuna's samplers, one study per sequence, such as sqlite:///trials.db"
    how.add("--study", metavar="URL", help=study)
    prune = "drop outputs that can no longer meet the criterion: faster, but their quality stays unknown"
    how.add("--prune", action="store_true", help=prune)
    how.add(
        "--prove",
        type=int,
        metavar="MASKS",
        help="under the same-output criterion (agreement, tolerance 0): maximum number of masks per sequence tested "
        "without decoding, to raise the lower bound",
    )
    how.add("--seed", type=int, help="seed of every random choice")


def _add_machine(machine: Settings) -> None:
    machine.add("--batch-rows", type=int, help="maximum number of allocations per decoding batch")
    machine.add("--memory", type=int, help="maximum memory beyond the loaded model, in MiB, per worker")
    machine.add(
        "--near-tie",
        type=float,
        metavar="LOGITS",
        help="tokens that lead by at most this are recomputed alone, as in plain generation (default: 8 times the "
        "rounding measured on this machine)",
    )
    add_dtype(machine)
    add_device(machine)
    add_trust(machine)


def _add_run(run: Any) -> None:
    add_config(run, "; or a run or its manifest.json, to search again with its settings")
    begin = run.add_mutually_exclusive_group()
    begin.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    begin.add_argument("--resume", type=Path, metavar="RUN", help="continue an interrupted run")
    run.add_argument(
        "--from",
        dest="prior",
        type=Path,
        metavar="RUN",
        help="start from the outcomes of RUN, and its settings where none are given: another strategy, more effort",
    )
    run.add_argument(
        "--executor",
        default="local",
        metavar="KIND",
        help="local: processes of this machine that share one model; ray: workers on a Ray cluster",
    )
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers, of one thread each (default: one per free processor core, or per GPU on Ray)",
    )
    _add_drawing(run)
    add_loggers(run)
    add_cache_options(run)
    run.add_argument("--address", help="of the Ray cluster, such as auto (default: start one on this machine)")


def add_loggers(run: Any) -> None:
    """Adds `--tensorboard` and `--wandb`."""
    run.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write the numbers as TensorBoard events into DIR/RUNNAME (layer-oracle[tensorboard])",
    )
    run.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="also log the numbers and settings to a project of Weights & Biases (layer-oracle[wandb]); "
        "WANDB_MODE=offline keeps them on this machine",
    )


def open_loggers(arguments: argparse.Namespace) -> list["Logger"]:
    """The loggers asked for.

    Raises:
        InputError: if the package of one is not installed.
    """
    from oracle.loggers import TensorBoardLogger, WandbLogger

    found: list[Logger] = [] if arguments.tensorboard is None else [TensorBoardLogger(arguments.tensorboard)]
    return found if arguments.wandb is None else [*found, WandbLogger(arguments.wandb)]


def _add_drawing(run: Any) -> None:
    run.add_argument(
        "--no-figures",
        dest="figures",
        action="store_false",
        default=None,
        help="draw later, with 'oracle figures'; a resumed search keeps to it",
    )


def _run_demo(arguments: argparse.Namespace) -> None:
    from oracle.config import SearchConfig

    config = SearchConfig(limit=DEMO_SEQUENCES, **given_settings(arguments, SearchConfig()))

    from oracle.pipeline.run import run_search

    out = arguments.out or new_folder(Path("runs") / "demo")
    _show(arguments, lambda **how: run_search(config, out, figures=_draws(arguments), **how))


def _run_search(arguments: argparse.Namespace) -> None:
    from oracle.config import SearchConfig
    from oracle.errors import InputError
    from oracle.executors import Workers
    from oracle.pipeline.settings_check import check_settings
    from oracle.search import get_strategy
    from oracle.utils import progress as shown

    workers = Workers(kind=arguments.executor, count=arguments.workers, address=arguments.address)
    if arguments.resume and arguments.prior:
        raise InputError("--resume continues a run and --from starts another one: give only one of them")
    base, run = SearchConfig(), None
    template = config_run(arguments.config_file)
    if template and (arguments.resume or arguments.prior):
        raise InputError("--config with a run and --resume or --from both name a run's settings: give only one of them")
    if earlier := arguments.resume or arguments.prior or template:
        from oracle.store import Run

        run = Run.open(earlier)
        base = SearchConfig.from_dict(run.manifest["config"])
    given = given_settings(arguments, base)
    if arguments.resume:
        get_strategy(replace(base, **given).strategy)
    else:
        from oracle.pipeline.resume import authorised

        config = authorised(run, given) if run else replace(base, **given)
        check_settings(config)
        if arguments.out is not None:
            from oracle.store import check_free

            check_free(arguments.out)

    if preset := getattr(arguments, "preset", None):
        shown.note(progress(arguments), f"Settings of {preset}")

    loggers = open_loggers(arguments)

    # What needs torch comes last, so that a misspelled setting is refused at once.
    from oracle.pipeline.run import resume_search, run_search

    if arguments.resume:
        _show(
            arguments,
            lambda **how: resume_search(arguments.resume, settings=given, workers=workers, loggers=loggers, **how),
        )
        return
    out = arguments.out or new_folder(Path("runs") / "search")
    how = {"prior": arguments.prior, "workers": workers, "loggers": loggers, "figures": _draws(arguments)}
    _show(arguments, lambda **more: run_search(config, out, **how, **more))


def _draws(arguments: argparse.Namespace) -> bool:
    return arguments.figures is not False


def _show(arguments: argparse.Namespace, search: Any) -> None:
    """Runs a search, then draws its figures and prints its summary."""
    from analysis.plots.source import Source
    from analysis.queries import budget_rows
    from oracle.cli.formats import give
    from oracle.cli.run_tables import show_summary, summary_tables
    from oracle.cli.tables import show_line

    watch = progress(arguments)
    found: list[tuple[Any, Any]] = []
    with stoppable() as stop:
        run = search(
            store=open_store(arguments),
            watch=watch,
            stop=stop,
            summarised=lambda experiment, summary: found.append((experiment, summary)),
        )
    summary, out = run.summary(whole=True), run.folder
    draws = _draws(arguments) and run.manifest.get("figures") is not False
    if found:
        [(experiment, computed)] = found
        source = Source(experiment=experiment, folder=out, known=computed)
    else:
        note(f"the search of '{out}' had already ended: nothing was left to do")
        source, draws = Source.open(out), draws and not (out / "figures").is_dir()
    if draws:
        from oracle.cli.figures import draw_runs

        draw_runs([source], out / "figures", watch=watch)
    if getattr(arguments, "resume", None) and found:
        note_older(out, drawn=draws)
    facts = {key: value for key, value in run.manifest.get("data", {}).items() if key in ("decisions", "skipped")}
    rows = budget_rows(source.experiment, source.summary.minimal)

    def whole() -> dict[str, Any]:
        about = {"data": facts} if facts else {}
        return {**summary, "machine": run.manifest.get("machine"), **about, "run": str(out)}

    def show() -> None:
        show_summary(summary, rows)
        if facts.get("skipped"):
            skipped = ", ".join(f"{count} ({why})" for why, count in facts["skipped"].items())
            show_line(f"Rows left out: {skipped}")
        show_line("")
        show_line(f"Run: {out}")
        if (out / "figures").is_dir():
            drawn = len({path.stem for path in (out / "figures").glob("*.png")})
            show_line(f"Figures: {out / 'figures'} ({drawn}; others after measurements: oracle figures --help)")
        # An id with control characters cannot be printed as it is.
        names = (name for name in run.sequences()["sequence"] if printable(name) == name)
        if (first := next(names, None)) is None:
            show_line(f"Next: oracle query {shlex.quote(str(out))}")
            return
        # An id such as -x would be taken for an option.
        option = shlex.quote(f"--sequence={first}") if first.startswith("-") else f"--sequence {shlex.quote(first)}"
        show_line(f"Next: oracle query {shlex.quote(str(out))} {option}")

    give(arguments, summary_tables(summary, rows), whole=whole, show=show, run=run)


def new_folder(wanted: Path) -> Path:
    """The wanted folder, or the first of its numbered siblings that does not exist yet."""
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
