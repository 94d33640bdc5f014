"""The command line: `oracle demo`, `search`, `query`, `figures`."""

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, NoReturn

from oracle.errors import InputError
from oracle.printable import printable

__all__ = ["main"]

DEMO_SEQUENCES = 24


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """One clear line and exit code 2, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


def main(argv: Seq[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Standard error does so already: what an encoding lacks is escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"oracle: error: {' '.join(printable(str(error)).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("oracle: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="oracle", description="How many layers of a language model does each sequence need?")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _demo(commands)
    _search(commands)
    _query(commands)
    _figures(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary, formatter_class=_Formatter)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _run_demo,
        f"Search {DEMO_SEQUENCES} bundled sequences on the embedded model, verify, draw: the whole tool in minutes.",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    _add_quiet(parser)


def _search(commands: Any) -> None:
    parser = _command(
        commands,
        "search",
        _run_search,
        "Search how few layers each sequence needs to be answered as well as the full model answers it.",
    )
    # The defaults of the settings live in the config; help shows them.
    from oracle.config import SearchConfig
    from oracle.quality import METRICS

    defaults = SearchConfig()
    what = parser.add_argument_group("what to search")
    what.add_argument("--model", default=defaults.model, help="hub id, local folder, GGUF file, or the embedded model")
    what.add_argument(
        "--data",
        default=defaults.data,
        help="JSONL, CSV, TSV, Parquet or text file, a name for the datasets library, or the bundled 'instruct'",
    )
    what.add_argument("--limit", type=int, help="at most so many sequences, spread evenly over the tasks")
    what.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these tasks")
    columns = parser.add_argument_group(
        "columns of the data (nested ones with dots: instances.0.output; without these: prompt, references, id, task)"
    )
    columns.add_argument("--prompt-column", help="column of the prompt")
    columns.add_argument("--template", help=r"prompt made of several columns, such as '{instruction}\n\n{input}'")
    columns.add_argument(
        "--reference-column",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column of references; repeatable",
    )
    columns.add_argument(
        "--reference-file",
        action="append",
        default=[],
        metavar="FILE",
        help="text file aligned with a text file of prompts, a reference a line; repeatable",
    )
    columns.add_argument("--choices-column", help="column of the list of choices")
    columns.add_argument("--answer-column", help="column of the right choice: index, letter or text")
    columns.add_argument("--id-column", help="column of the id")
    columns.add_argument("--task-column", help="column of the task's name")
    how = parser.add_argument_group("how to search")
    how.add_argument(
        "--criterion",
        default=defaults.criterion,
        metavar="METRIC",
        help=f"metric that must not fall below the full model's: {', '.join(METRICS)}",
    )
    how.add_argument("--tolerance", type=float, default=defaults.tolerance, help="how far below it may fall")
    how.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="also compute log_likelihood, choice_accuracy",
    )
    how.add_argument(
        "--scope",
        default=defaults.scope,
        metavar="SCOPE",
        help="decode: the prompt runs at full depth (so the first token is the full model's), the others use the "
        "allocation; sequence: all use it",
    )
    how.add_argument("--max-new-tokens", type=int, default=defaults.max_new_tokens, help="length of an output at most")
    how.add_argument("--allocations", type=int, default=defaults.allocations, help="allocations tried per sequence")
    how.add_argument("--batch-rows", type=int, default=defaults.batch_rows, help="allocations decoded as one batch")
    how.add_argument("--memory", type=int, default=defaults.memory, help="MiB that may be added to the loaded model")
    how.add_argument("--no-chat-template", action="store_true", help="give the model the bare prompt")
    how.add_argument("--seed", type=int, default=defaults.seed, help="seed of every random choice")
    how.add_argument("--dtype", default=defaults.dtype, help="of the weights: float32, bfloat16, ...")
    how.add_argument("--device", default=defaults.device, help="cpu, cuda or auto")
    how.add_argument("--trust-remote-code", action="store_true", help="let code that comes with the model run")
    how.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    _add_quiet(parser)


def _query(commands: Any) -> None:
    parser = _command(commands, "query", _run_query, "Ask a stored run for minimal budgets; needs no model.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--sequence", metavar="ID", help="one sequence: its frontier and outputs")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="F",
        help="the oracle's choice under a mean budget of F of the layers (0 to 1)",
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")


def _figures(commands: Any) -> None:
    parser = _command(commands, "figures", _run_figures, "Draw the figures of a stored run again; needs no model.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", type=Path, help="folder for the pictures (default: RUN/figures, or RUN/figures-METRIC)"
    )
    parser.add_argument("--criterion", metavar="METRIC", help="read the run by another metric than its own")
    _add_quiet(parser)


def _run_demo(arguments: argparse.Namespace) -> None:
    from oracle.config import SearchConfig

    _search_and_show(SearchConfig(limit=DEMO_SEQUENCES, seed=arguments.seed), arguments, "demo")


def _run_search(arguments: argparse.Namespace) -> None:
    from oracle.config import SearchConfig
    from oracle.sequences import Columns

    template = arguments.template
    named = {
        "prompt": arguments.prompt_column,
        "template": template and template.replace("\\n", "\n").replace("\\t", "\t"),
        "references": tuple(arguments.reference_column),
        "choices": arguments.choices_column,
        "answer": arguments.answer_column,
        "id": arguments.id_column,
        "task": arguments.task_column,
    }
    same = (
        "model",
        "data",
        "limit",
        "criterion",
        "tolerance",
        "scope",
        "max_new_tokens",
        "allocations",
        "batch_rows",
        "memory",
    )
    config = SearchConfig(
        **{name: getattr(arguments, name) for name in same},
        columns=Columns(**{name: value for name, value in named.items() if value is not None and value != ()}),
        reference_files=tuple(arguments.reference_file),
        tasks=tuple(arguments.tasks),
        metrics=tuple(arguments.metrics),
        chat_template=not arguments.no_chat_template,
        seed=arguments.seed,
        dtype=arguments.dtype,
        device=arguments.device,
        trust_remote_code=arguments.trust_remote_code,
    )
    _search_and_show(config, arguments, "search")


def _search_and_show(config: Any, arguments: argparse.Namespace, name: str) -> None:
    from oracle.progress import silent, terminal
    from oracle.query import budgets
    from oracle.runner import run_search
    from oracle.terminal import show_summary

    out = arguments.out or _new_folder(Path("runs") / name)
    run = run_search(config, out, watch=silent if arguments.quiet else terminal)
    summary = run.summary()
    if arguments.json:
        print(json.dumps({**summary, "run": str(out)}))
        return
    show_summary(summary, budgets(out))
    first = shlex.quote(printable(run.sequences()["sequence"][0]))
    print(f"\nRun: {out}\nFigures: {out / 'figures'}\nNext: oracle query {shlex.quote(str(out))} --sequence {first}")


def _new_folder(wanted: Path) -> Path:
    """The wanted folder, or the first of its numbered siblings that is not there yet."""
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _run_query(arguments: argparse.Namespace) -> None:
    from oracle import query
    from oracle.store import Run
    from oracle.terminal import show_budgets, show_oracle, show_sequence

    folder, criterion = arguments.folder, arguments.criterion
    layers = Run.open(folder).manifest["model"]["layers"]
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


if __name__ == "__main__":
    sys.exit(main())
