"""`oracle measure`: measurements of a stored run that need its model once."""

import argparse
from pathlib import Path
from typing import Any

from oracle.cli.cache import add_cache_options, open_store
from oracle.cli.parsing import Parser, Settings, add_device, add_quiet, add_trust, command, loading, progress

__all__ = ["add_measure"]

EPILOG = """\
tables, in RUN/measures:
  similarity  per token, cosine and relative error of the last hidden state against the full model's: unified
              skipping and early exit at each budget
  features    length, likelihood and uncertainty of the full model's output, and features of the prompt
  throughput  tokens per second and quality of early exit, SkipDecode and unified skipping at each speed-up and batch
              size, against the full model; zero-shot, as the model is not trained for any of them
"""

SIZES = {
    "budgets": "budgets at which similarity is measured",
    "sequences": "maximum number of sequences for similarity and throughput",
    "new_tokens": "tokens generated per row of a timed batch",
    "rounds": "number of timings per batch",
    "batches": "batch sizes, in rows",
    "speedups": "nominal speed-ups of the policies",
    "policies": "policies to time: early-exit, skipdecode, unified",
}


def add_measure(commands: Any) -> None:
    """Adds `oracle measure`."""
    command(
        commands,
        "measure",
        _run_measure,
        "Measure similarity, features and throughput of a run with its model, once; later commands need no model.",
        _add_measure_options,
        tables=True,
        config=True,
    )


def _add_measure_options(parser: Parser) -> None:
    from oracle.measure import Sizes

    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--only", nargs="+", metavar="TABLE", default=[], help="only these tables (default: all)")
    parser.add_argument("--again", action="store_true", help="repeat measurements that are still valid")
    for name, meaning in SIZES.items():
        default = getattr(Sizes(), name)
        options = [f"--{name.replace('_', '-')}"]
        if name == "sequences":
            options.insert(0, "--limit")  # as in other commands
        if isinstance(default, tuple):
            kind, metavar = (str, "NAME") if name == "policies" else (int, "N")
            parser.add_argument(*options, type=kind, nargs="+", metavar=metavar, default=list(default), help=meaning)
        else:
            parser.add_argument(*options, dest=name, type=int, metavar="N", default=default, help=meaning)
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_cache_options(parser)
    add_quiet(parser)


def _run_measure(arguments: argparse.Namespace) -> None:
    from oracle.cli.formats import give
    from oracle.cli.tables import of_records, show_line
    from oracle.measure import Sizes, due, machine_of, measure_run
    from oracle.measure.tables import FOLDER, TABLES
    from oracle.pipeline.reload import model_of
    from oracle.store import Run

    how = loading(arguments)
    values: dict[str, Any] = {name: getattr(arguments, name) for name in SIZES}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    sizes = Sizes(**values)
    run = Run.open(arguments.folder)
    machine = machine_of(run, how.get("device"))
    measured = due(run, only=arguments.only, again=arguments.again, sizes=sizes, machine=machine)
    if measured:
        measure_run(
            arguments.folder,
            model=model_of(run, **how),
            only=measured,
            again=arguments.again,
            sizes=sizes,
            store=open_store(arguments),
            watch=progress(arguments),
        )
    names = [name for name in TABLES if name in arguments.only or not arguments.only]
    paths = {name: run.folder / FOLDER / f"{name}.parquet" for name in names}
    rows = [{"table": name, "measured": name in measured, "path": str(path)} for name, path in paths.items()]

    def show() -> None:
        for row in rows:
            show_line(f"{row['path']}{'' if row['measured'] else '  (still valid; --again repeats it)'}")

    whole = {"tables": {name: str(path) for name, path in paths.items()}, "measured": measured}
    give(arguments, [of_records("tables", rows)], whole=lambda: whole, show=show, run=run)
