"""`oracle skiplayer`: a small model trained from scratch to skip layers, with its comparison arms."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.interrupts import stoppable
from oracle.cli.parsing import Parser, Settings, add_device, add_quiet, command, progress
from oracle.errors import InputError, Interrupted

if TYPE_CHECKING:
    from oracle.cli.tables import Row, Table
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
        tables=True,
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

    from oracle.cli.formats import give
    from oracle.cli.tables import show_line
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
    tables = _tables(results)

    def show() -> None:
        _show(results, tables)
        show_line("")
        show_line(f"Study: {folder}")
        show_line(f"Figure: {figures[0]}")

    summary = folder / "summary.json"
    give(arguments, tables, whole=lambda: json.loads(summary.read_text(encoding="utf-8")), show=show)
    return 0


def _config(arguments: argparse.Namespace) -> "SkipConfig":
    from oracle.skiplayer.config import PRESETS, SkipConfig

    names = SkipConfig.__dataclass_fields__
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if given and arguments.resume:
        raise InputError(f"--resume uses the study's own settings; omit --{next(iter(given))}")
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(PRESETS[arguments.preset], **{**given, **lists})


def _tables(results: "Results") -> list["Table"]:
    """The arms; the accuracy of each on the one-shot tasks, if there are any."""
    from analysis.formatting import between, decimals
    from oracle.cli.tables import Column, Table, decimal, qualities, shares, words

    columns = [
        words("arm", "arm"),
        Column(heading="layers", text=lambda row: f"{row['layers']:.3g}"),
        shares("executed", "density"),
        Column(heading="MFLOPs/token", text=lambda row: decimals(row["flops"] / 1e6, 3)),
        qualities("nats/token", "loss"),
        Column(heading="95 % interval", text=lambda row: between(row["loss_low"], row["loss_high"])),
        Column(heading="minus SkipLayer", text=_difference),
        decimal("tokens/s", "tokens_per_second", 0),
    ]
    tables = [Table(name="arms", rows=json.loads(results.arms.to_json(orient="records")), columns=columns)]
    if len(results.tasks):
        names = list(dict.fromkeys(results.tasks["task"]))
        rows = [
            {"arm": arm, **{row["task"]: _accuracy(row) for row in found.to_dict("records")}}
            for arm, found in results.tasks.groupby("arm", sort=False)
        ]
        shown = [Column(heading=name, text=itemgetter(name)) for name in names]
        tables.append(Table(name="tasks", rows=rows, columns=[words("arm", "arm"), *shown]))
    return tables


def _show(results: "Results", tables: Sequence["Table"]) -> None:
    from oracle.cli.tables import show_line, show_table

    seeds = results.training["seed"].nunique()
    over = f"Student's t over {seeds} seeds" if seeds > 1 else "bootstrap over held-out rows, one seed"
    dense = ""
    if any(row["arm"] == "dense" for row in tables[0].rows):
        dense = "; dense: two depths, interpolated at equal FLOPs"
        if results.extrapolated:
            dense += f" (at {results.extrapolated} of {seeds} seeds extrapolated, as its depths do not enclose them)"
    show_line("")
    show_line(f"Held out, at inference; intervals: 95 %, {over}{dense}")
    show_line("")
    show_table(tables[0])
    for table in tables[1:]:
        show_line("")
        show_line("One-shot tasks, four choices each: accuracy, with 95 % interval")
        show_line("")
        show_table(table)
    if results.density_error is not None:
        executed = results.density[results.density["arm"] == "skiplayer"]["executed"]
        by_unit = ", ".join(f"{value:.2f}" for value in executed)
        show_line("")
        show_line(f"SkipLayer misses its target density by {results.density_error:.3f}; by unit it runs {by_unit}")


def _difference(row: "Row") -> str:
    from analysis.formatting import between, signed

    ends = between(row["difference_low"], row["difference_high"], signed, word="to")
    return signed(row["difference"]) + (f" ({ends})" if ends else "")


def _accuracy(row: Mapping[Any, Any]) -> str:
    return f"{100 * row['accuracy']:.0f} % ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
