"""`oracle eval`: a model under a policy, scored by lm-evaluation-harness."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.data_options import add_tasks
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
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.cli.tables import Table
    from oracle.lm_eval import LayerOracle

__all__ = ["add_eval"]

EPILOG = """\
which layers run (default: all of them):
  --allocation "0-3,7,9-29"   one allocation for every request
  --controller unified --setting speedup=2
                              a controller of 'oracle compare'; one that learns
                              is trained on the run
  --oracle                    the allocations that the run found; its data must
                              be the same tasks and options

Scores are the harness's own. Beside them stand the executed fraction of the
layers over generated or scored tokens, the same with the prompts' tokens, FLOPs
per token and tokens per second; the results file has them under 'layer_oracle'.
'python -m oracle.lm_eval' is the harness's own command line with the model
'layer-oracle'.
"""


def add_eval(commands: Any) -> None:
    """Adds `oracle eval`."""
    command(
        commands,
        "eval",
        _run_eval,
        "Score a run's model on tasks of lm-evaluation-harness: whole, under one allocation, a controller, the oracle.",
        _add_eval_options,
        tables=True,
        config=True,
    )


def _add_eval_options(parser: Parser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder, whose model, scope and unit apply")
    parser.add_argument(
        "--tasks", required=True, metavar="TASKS", help="names of tasks, groups or tags, separated by commas"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of documents per task")
    which = parser.add_argument_group("which layers run")
    which.add_argument("--controller", metavar="NAME", help="a controller")
    setting = "setting of the controller, such as speedup=2; repeatable"
    which.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help=setting)
    which.add_argument("--allocation", metavar="LAYERS", help="one allocation, such as 0-3,7,9-29")
    which.add_argument(
        "--oracle",
        nargs="?",
        const="equal_quality",
        metavar="POLICY",
        help="the run's allocations: equal_quality (the default) or minimal",
    )
    which.add_argument(
        "--scope", help="tokens that run the allocation: decode, decode-last, sequence (default: the run's)"
    )
    add_tasks(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="results file (default: RUN/lm_eval/TASKS-POLICY-SCOPE.json)"
    )
    parser.add_argument("--samples", action="store_true", help="also write every document with its outputs")
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_eval(arguments: argparse.Namespace) -> None:
    from oracle.settings import given_part
    from oracle.tasks.options import TaskOptions, task_names
    from oracle.utils.arguments import parse_arguments

    names = task_names(f"lm-eval:{arguments.tasks}")
    options = given_part(vars(arguments), "task_options", TaskOptions())
    chosen = {
        "controller": arguments.controller,
        "allocation": arguments.allocation,
        "oracle": arguments.oracle,
        "scope": arguments.scope,
        **parse_arguments(arguments.setting, "--setting"),
    }
    if arguments.controller is None and arguments.setting:
        raise InputError(f"--setting {arguments.setting[0]} needs --controller NAME: give both or neither")
    how = loading(arguments)
    how["pretrained"] = how.pop("model", None)

    from oracle.store import Run
    from oracle.tasks.harness import open_manager, require_harness

    run = Run.open(arguments.folder)

    require_harness()
    open_manager(names, options)  # a misspelled task is refused before the model is loaded

    from oracle.cli.formats import give
    from oracle.cli.tables import of_records
    from oracle.lm_eval import LayerOracle, evaluate_tasks
    from oracle.lm_eval.evaluate import score_rows, write_results

    lm = LayerOracle(arguments.folder, watch=progress(arguments), **how, **chosen)
    results = evaluate_tasks(lm, names, options, limit=arguments.limit, samples=arguments.samples)
    path = arguments.out or arguments.folder / "lm_eval" / f"{_stem(names, lm.policy.name, lm.settings.scope)}.json"
    write_results(results, path)
    rows, cost = score_rows(results), results["layer_oracle"]["cost"]
    spent = [{"requests": kind, **one} for kind, one in cost.items()]
    tables = [of_records("scores", rows), of_records("cost", spent)]

    def whole() -> dict[str, Any]:
        return {**results["layer_oracle"], "scores": rows, "notes": lm.notes(), "path": str(path)}

    give(arguments, tables, whole=whole, show=lambda: _show(lm, tables[0], cost, path), run=run)


def _show(lm: "LayerOracle", scores: "Table", cost: dict[str, Any], path: Path) -> None:
    from analysis.formatting import counted, percent
    from oracle.cli.tables import show_line, show_table

    show_table(scores)
    show_line("")
    show_line(f"{lm.policy.name}, scope {lm.settings.scope}")
    for kind, spent in cost.items():
        show_line(
            f"{kind}: {counted(spent['tokens'], 'token')} at {percent(spent['executed_fraction'])} of the layers "
            f"({percent(spent['end_to_end_fraction'])} with {counted(spent['prompt_tokens'], 'prompt token')})"
            + (f", {spent['flops_per_token'] / 1e6:.4g} MFLOPs/token" if spent["flops_per_token"] else "")
            + (f", {spent['tokens_per_second']:.4g} tokens/s" if spent["tokens_per_second"] else "")
        )
    for line in lm.notes():
        show_line(f"Note: {line}")
    show_line(f"Written: {path}")


def _stem(names: tuple[str, ...], policy: str, scope: str) -> str:
    """Name of the results file, of letters that any file system takes."""
    text = f"{'+'.join(names)}-{policy}-{scope}"
    return "".join(letter if letter.isalnum() or letter in "+-_=." else "-" for letter in text)[:120]
