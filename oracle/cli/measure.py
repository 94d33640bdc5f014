"""`oracle measure`: what a stored run leaves open and its model answers once."""

import argparse
import json
from pathlib import Path
from typing import Any

from oracle.cli.cache import add_cache_options, open_store
from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, command, loading
from oracle.utils.text import printable

__all__ = ["add_measure"]

EPILOG = """\
tables, in RUN/measures:
  similarity  cosine and relative error of the last hidden state against the full model's, token by token: unified
              skipping and early exit at each budget
  features    how long, how likely and how uncertain the full model's output is, and what it makes of the prompt
  throughput  tokens a second and quality of unified skipping at each speed-up and batch, beside the full model
"""

SIZES = {
    "budgets": "budgets at which similarity is taken",
    "sequences": "sequences that similarity and throughput look at, at most",
    "new_tokens": "tokens that every row of a timed batch generates",
    "rounds": "how often each batch is timed",
    "batches": "rows that are decoded together",
    "speedups": "nominal speed-ups of unified skipping",
}


def add_measure(commands: Any) -> None:
    """Adds `oracle measure`."""
    parser = command(
        commands,
        "measure",
        _run_measure,
        "Measure similarity, features and throughput of a run with its model; then nobody needs the model again.",
    )
    # The defaults live with the settings; help shows them.
    from oracle.measure import Sizes

    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--only", nargs="+", metavar="TABLE", default=[], help="only these tables (default: all)")
    parser.add_argument("--again", action="store_true", help="measure also what is there and still valid")
    for name, meaning in SIZES.items():
        default = getattr(Sizes(), name)
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, tuple):
            parser.add_argument(option, type=int, nargs="+", metavar="N", default=list(default), help=meaning)
        else:
            parser.add_argument(option, type=int, metavar="N", default=default, help=meaning)
    settings = Settings(parser)
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_cache_options(parser)
    add_quiet(parser)


def _run_measure(arguments: argparse.Namespace) -> None:
    from oracle.measure import Sizes, due, measure_run
    from oracle.pipeline.reload import model_of
    from oracle.store import Run
    from oracle.utils.progress import silent, terminal

    how = loading(arguments)
    values: dict[str, Any] = {name: getattr(arguments, name) for name in SIZES}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    sizes = Sizes(**values)
    run = Run.open(arguments.folder)
    measured = due(run, only=arguments.only, again=arguments.again, sizes=sizes)
    model = model_of(run, **how) if measured else None
    paths = measure_run(
        arguments.folder,
        model=model,
        only=arguments.only,
        again=arguments.again,
        sizes=sizes,
        store=open_store(arguments),
        watch=silent if arguments.quiet else terminal,
    )
    if arguments.json:
        print(json.dumps({"tables": {name: str(path) for name, path in paths.items()}, "measured": measured}))
        return
    for name, path in paths.items():
        print(f"{printable(str(path))}{'' if name in measured else '  (was there; --again measures it anew)'}")
