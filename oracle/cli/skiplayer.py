"""`oracle skiplayer`: a small model trained from scratch to skip layers, with its comparison arms."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.interrupts import stoppable
from oracle.cli.parsing import Parser, Settings, add_device, add_quiet, command, progress
from oracle.errors import InputError, Interrupted
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.skiplayer.config import SkipConfig
    from oracle.skiplayer.results import Results

__all__ = ["add_skiplayer"]

SIZES = {
    "width": "hidden width",
    "layers": "number of layers",
    "heads": "number of attention heads",
    "feed-forward": "width of the feed-forward part",
    "context": "tokens per row",
    "steps": "number of training steps",
    "batch": "rows per training step",
    "validation": "number of held-out rows",
    "questions": "number of questions per one-shot task",
}


def add_skiplayer(commands: Any) -> None:
    """Adds `oracle skiplayer`."""
    command(
        commands,
        "skiplayer",
        _run_skiplayer,
        "Train a small model that learns which tokens skip which layers, and compare it with its control arms.",
        _add_skiplayer_options,
        config=True,
    )


def _add_skiplayer_options(parser: Parser) -> None:
    from oracle.skiplayer.config import ARMS, PRESETS

    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder to write")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="continue an interrupted study")
    parser.add_argument("--preset", choices=list(PRESETS), default="laptop", help="defaults of the other settings")
    settings = Settings(parser.add_argument_group("settings (defaults shown: preset laptop)"), PRESETS["laptop"])
    settings.add("--arms", nargs="+", metavar="ARM", help=f"arms to train: {', '.join(ARMS)}")
    settings.add("--text", nargs="+", metavar="FILE", help="text files to train on (default: bundled text)")
    settings.add("--density", type=float, help="target share of layers that a token runs")
    settings.add("--unit", help="unit of a router's decision: layer, or module (attention and feed-forward separately)")
    settings.add("--estimator", help="gradient of gates: executed (skips in training too) or all")
    settings.add("--density-weight", type=float, help="weight of the density loss")
    for name, meaning in SIZES.items():
        settings.add(f"--{name}", type=int, help=meaning)
    settings.add("--learning-rate", type=float, help="peak learning rate")
    settings.add("--tokenizer", help="bytes, or a tokenizer.json")
    settings.add("--seed", type=int, help="seed of every random choice")
    settings.add("--seeds", type=int, help="number of trainings per arm, each of another seed")
    add_device(settings)
    add_quiet(parser)


def _run_skiplayer(arguments: argparse.Namespace) -> int:
    if (arguments.out is None) == (arguments.resume is None):
        raise InputError("exactly one of --out (new folder) and --resume (interrupted study) is required")
    config = _config(arguments)

    from oracle.skiplayer.figure import draw_study
    from oracle.skiplayer.study import resume_study, run_study
    from oracle.skiplayer.study_folder import Folder

    folder = arguments.out or arguments.resume
    watch = progress(arguments, only_terminal=True)
    try:
        with stoppable() as stop:
            if arguments.resume:
                results = resume_study(folder, watch=watch, stop=stop)
            else:
                results = run_study(config, folder, watch=watch, stop=stop)
    except Interrupted:
        print(f"oracle: stopped; continue with: oracle skiplayer --resume {shlex.quote(str(folder))}", file=sys.stderr)
        return 130
    figures = draw_study(results, folder / "skiplayer", Folder.open(folder).manifest)
    if arguments.json:
        print(json.dumps(json.loads((folder / "summary.json").read_text(encoding="utf-8")), indent=2))
    else:
        _show(results)
        print(f"\nStudy: {printable(str(folder))}\nFigure: {printable(str(figures[0]))}")
    return 0


def _config(arguments: argparse.Namespace) -> "SkipConfig":
    from oracle.skiplayer.config import PRESETS, SkipConfig

    names = SkipConfig.__dataclass_fields__
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if given and arguments.resume:
        raise InputError(f"--resume uses the study's own settings; omit --{next(iter(given))}")
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(PRESETS[arguments.preset], **{**given, **lists})


def _show(results: "Results") -> None:
    from oracle.cli.tables import show_rows

    arms = json.loads(results.arms.to_json(orient="records"))
    seeds = results.training["seed"].nunique()
    over = f"Student's t over {seeds} seeds" if seeds > 1 else "bootstrap over held-out rows, one seed"
    dense = ""
    if any(row["arm"] == "dense" for row in arms):
        dense = "; dense: two depths, interpolated at equal FLOPs"
        if results.extrapolated:
            dense += f" (at {results.extrapolated} of {seeds} seeds extrapolated, as its depths do not enclose them)"
    print(f"\nHeld out, at inference; intervals: 95 %, {over}{dense}\n")
    rows = [
        {
            "arm": row["arm"],
            "layers": f"{row['layers']:.3g}",
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
