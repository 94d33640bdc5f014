"""`oracle demo` and `oracle search`: everything that needs a model."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_quiet, command
from oracle.printable import printable

__all__ = ["add_demo", "add_search"]

DEMO_SEQUENCES = 24


def add_demo(commands: Any) -> None:
    """Adds `oracle demo`."""
    parser = command(
        commands,
        "demo",
        _run_demo,
        f"Search {DEMO_SEQUENCES} bundled sequences on the embedded model, verify, draw: the whole tool in minutes.",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    add_quiet(parser)


def add_search(commands: Any) -> None:
    """Adds `oracle search`."""
    parser = command(
        commands,
        "search",
        _run_search,
        "Search how few layers each sequence needs to be answered as well as the full model answers it.",
    )
    # The defaults of the settings live in the config; help shows them.
    from oracle.config import SearchConfig
    from oracle.quality import METRICS
    from oracle.search import STRATEGIES

    width = max(map(len, STRATEGIES))
    lines = [f"  {name:{width}}  {strategy.hint}" for name, strategy in STRATEGIES.items()]
    parser.epilog = "\n".join(["strategies:", *lines])
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
    how.add_argument(
        "--unit",
        default=defaults.unit,
        metavar="UNIT",
        help="layer: an allocation is made of layers; sublayer: of attention and MLP apart, twice as many",
    )
    how.add_argument("--max-new-tokens", type=int, default=defaults.max_new_tokens, help="length of an output at most")
    how.add_argument(
        "--strategy", default=defaults.strategy, metavar="NAME", help="how allocations are chosen: see the end"
    )
    how.add_argument(
        "--evaluations", type=int, default=defaults.evaluations, help="allocations evaluated per sequence at most"
    )
    how.add_argument(
        "--paths", action="store_true", help="let the mcts strategies repeat layers (needs --scope sequence)"
    )
    how.add_argument("--seconds", type=float, help="time per sequence at most")
    how.add_argument(
        "--layer-executions",
        type=int,
        metavar="UNITS",
        help="layer x token units per sequence at most, as if each output were decoded alone",
    )
    how.add_argument(
        "--prune",
        action="store_true",
        help="drop outputs once they cannot meet the criterion: faster, but their quality stays unknown",
    )
    how.add_argument(
        "--prove",
        type=int,
        default=defaults.prove,
        metavar="MASKS",
        help="under the same-output criterion (agreement, tolerance 0): masks per sequence that may be tested without "
        "decoding, to raise the lower bound",
    )
    how.add_argument("--batch-rows", type=int, default=defaults.batch_rows, help="allocations decoded as one batch")
    how.add_argument("--memory", type=int, default=defaults.memory, help="MiB that may be added to the loaded model")
    how.add_argument("--no-chat-template", action="store_true", help="give the model the bare prompt")
    how.add_argument("--seed", type=int, default=defaults.seed, help="seed of every random choice")
    how.add_argument("--dtype", default=defaults.dtype, help="of the weights: float32, bfloat16, ...")
    how.add_argument("--device", default=defaults.device, help="cpu, cuda or auto")
    how.add_argument("--trust-remote-code", action="store_true", help="let code that comes with the model run")
    how.add_argument("--out", type=Path, help="run folder to write (default: a new one under runs/)")
    add_quiet(parser)


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
        "unit",
        "max_new_tokens",
        "strategy",
        "paths",
        "evaluations",
        "seconds",
        "layer_executions",
        "prune",
        "prove",
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
