"""`oracle skiplayer`: a small model trained from scratch to skip layers, and the arms beside it."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.interrupts import stoppable
from oracle.cli.parsing import Settings, add_device, add_quiet, command
from oracle.errors import InputError, Interrupted
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.skiplayer.config import SkipConfig
    from oracle.skiplayer.results import Results

__all__ = ["add_skiplayer"]


def add_skiplayer(commands: Any) -> None:
    """Adds `oracle skiplayer`."""
    from oracle.skiplayer.config import ARMS, PRESETS

    parser = command(
        commands,
        "skiplayer",
        _run_skiplayer,
        "Train a small model that learns which tokens skip which layers, and compare it with the arms beside it.",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder to write")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with a study that was interrupted")
    parser.add_argument("--preset", choices=list(PRESETS), default="laptop", help="where the other settings start from")
    settings = Settings(
        parser.add_argument_group("settings (defaults are those of the preset laptop)"), PRESETS["laptop"]
    )
    settings.add("--arms", nargs="+", metavar="ARM", help=f"what is trained: {', '.join(ARMS)}")
    settings.add("--text", nargs="+", metavar="FILE", help="text files to learn from (default: text that comes along)")
    settings.add("--density", type=float, help="share of the layers that a token is to run")
    settings.add("--unit", help="what a router decides over: layer, or module: attention and feed-forward apart")
    settings.add("--estimator", help="gradient of gates: executed (skips in training too) or all")
    settings.add("--density-weight", type=float, help="weight of the density loss")
    for name in ("width", "layers", "heads", "feed-forward", "context", "steps", "batch", "validation", "questions"):
        settings.add(f"--{name}", type=int, help="as it says")
    settings.add("--learning-rate", type=float, help="the highest")
    settings.add("--tokenizer", help="bytes, or a tokenizer.json")
    settings.add("--seed", type=int, help="of every random choice")
    add_device(settings)
    add_quiet(parser)


def _run_skiplayer(arguments: argparse.Namespace) -> int:
    if (arguments.out is None) == (arguments.resume is None):
        raise InputError("one of --out and --resume is required: a new folder, or that of an interrupted study")
    config = _config(arguments)

    from oracle.skiplayer.figure import draw_study
    from oracle.skiplayer.study import resume_study, run_study
    from oracle.skiplayer.study_folder import Folder
    from oracle.utils.progress import silent, terminal

    folder = arguments.out or arguments.resume
    watch = terminal if sys.stderr.isatty() and not arguments.quiet else silent
    try:
        with stoppable() as stop:
            if arguments.resume:
                results = resume_study(folder, watch=watch, stop=stop)
            else:
                results = run_study(config, folder, watch=watch, stop=stop)
    except Interrupted:
        print(f"oracle: stopped; go on with: oracle skiplayer --resume {shlex.quote(str(folder))}", file=sys.stderr)
        return 130
    figures = draw_study(results, folder / "skiplayer", Folder.open(folder).manifest)
    if arguments.json:
        print((folder / "summary.json").read_text(encoding="utf-8"))
    else:
        _show(results)
        print(f"\nStudy: {printable(str(folder))}\nFigure: {printable(str(figures[0]))}")
    return 0


def _config(arguments: argparse.Namespace) -> "SkipConfig":
    from oracle.skiplayer.config import PRESETS, SkipConfig

    names = SkipConfig.__dataclass_fields__
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if given and arguments.resume:
        raise InputError(f"--resume goes on with the study's own settings; leave --{next(iter(given))} out")
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(PRESETS[arguments.preset], **{**given, **lists})


def _show(results: "Results") -> None:
    from oracle.cli.tables import show_rows

    arms = json.loads(results.arms.to_json(orient="records"))
    print("\nHeld out, at inference; intervals: 95 % bootstrap over held-out rows, one seed\n")
    rows = [
        {
            "arm": row["arm"],
            "layers": row["layers"],
            "executed": f"{100 * row['density']:.1f} %",
            "MFLOPs/token": f"{row['flops'] / 1e6:.3f}",
            "nats/token": f"{row['loss']:.3f}",
            "95 % interval": f"{row['loss_low']:.3f} - {row['loss_high']:.3f}",
            "minus SkipLayer": "" if row["difference"] is None else _difference(row),
            "tokens/s": f"{row['tokens_per_second']:.0f}",
        }
        for row in arms
    ]
    show_rows(list(rows[0]), rows)
    if len(results.tasks):
        print("\nOne-shot tasks, four choices each: accuracy, with 95 % interval\n")
        tasks = [
            {"arm": arm, **{row["task"]: _accuracy(row) for row in found.to_dict("records")}}
            for arm, found in results.tasks.groupby("arm", sort=False)
        ]
        show_rows(list(tasks[0]), tasks)
    if results.density_error is not None:
        executed = results.density[results.density["arm"] == "skiplayer"]["executed"]
        print(f"\nSkipLayer misses its target density by {results.density_error:.3f}; by unit it runs ", end="")
        print(", ".join(f"{value:.2f}" for value in executed))


def _difference(row: dict[str, Any]) -> str:
    return f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"


def _accuracy(row: Mapping[Any, Any]) -> str:
    return f"{100 * row['accuracy']:.0f} % ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
