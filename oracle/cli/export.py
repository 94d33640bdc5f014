"""`oracle export`: a run as a data set."""

import argparse
import json
from pathlib import Path
from typing import Any

from oracle.cli.parsing import Settings, add_device, add_trust, command, loading
from oracle.errors import InputError
from oracle.utils.text import nearest_hint, printable

__all__ = ["add_export"]

FORMATS = """\
a run as data (each a folder with a README that explains the fields, and a manifest):
  hf     Parquet files that datasets.load_dataset opens: sequences with minimal allocations, and frontiers
  drllm  labels.jsonl: per layer 0 (skip), 1 (run) or 2 (repeat); train/: what Dr.LLM's trainer reads
  polar  samples.json: valid and invalid layer paths per sequence, as PoLar reads them
  jsonl  sequences.jsonl: one object per sequence, its frontier included

one allocation to deploy, chosen by --allocation, --budget or --sequence (prompt and output run the same layers):
  checkpoint            a Hugging Face folder with these layers only; loaded back and compared before it is kept
  mergekit              mergekit.yaml: passthrough slices
  llama-prune           prune-layers.txt: the layers to drop, for llama.cpp's --prune-layers
  layer-map             layers.json: the layers in the order they run, repeats included
  transformers-snippet  run_layers.py: a script in plain transformers
"""


def add_export(commands: Any) -> None:
    """Adds `oracle export`."""
    parser = command(
        commands,
        "export",
        _run_export,
        "Export a finished run as a data set, or one allocation as a checkpoint or a recipe for another tool.",
    )
    parser.epilog = FORMATS
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--format", required=True, help="see below")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="new folder to write")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--allocation", metavar="LAYERS", help="layers to deploy, such as 0-3,7,9-29")
    chosen.add_argument("--budget", type=float, metavar="COST", help="deploy the mask that 'oracle static RUN' chose")
    chosen.add_argument("--sequence", metavar="ID", help="deploy the minimal allocation of this sequence")
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings)
    add_trust(settings)


def _run_export(arguments: argparse.Namespace) -> None:
    from analysis.formatting import counted
    from oracle.export import DEPLOYMENTS, FORMATS, export
    from oracle.store import Run

    if arguments.format not in (*FORMATS, *DEPLOYMENTS):
        known = (*FORMATS, *DEPLOYMENTS)
        hint = nearest_hint(arguments.format, known)
        raise InputError(f"--format must be one of {', '.join(known)}, not '{arguments.format}'{hint}")
    if arguments.format in DEPLOYMENTS:
        _deploy(arguments)
        return
    if arguments.allocation or arguments.sequence or arguments.budget is not None:
        raise InputError(f"'{arguments.format}' exports the whole run; omit --allocation, --budget and --sequence")
    manifest = export(Run.open(arguments.folder), arguments.format, arguments.out)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), **manifest}))
        return
    tell = "tells" if manifest["informative"] == 1 else "tell"
    print(f"{counted(manifest['sequences'])}, {manifest['informative']} of them {tell} something")
    if manifest.get("not_minimal"):
        print(f"{manifest['not_minimal']} have labels above their minimal budget, which labels cannot express")
    for name in ("README.md", "manifest.json", *manifest["digests"]):
        print(printable(str(arguments.out / name)))


def _deploy(arguments: argparse.Namespace) -> None:
    from oracle.allocations import compact, parse, strip
    from oracle.export import deploy
    from oracle.export.deploy import measured_on, prompts_differ
    from oracle.store import Run

    run = Run.open(arguments.folder)
    if arguments.allocation:
        allocation = parse(arguments.allocation)
    elif arguments.budget is not None:
        from oracle.static import chosen_mask

        allocation = chosen_mask(run, arguments.budget)
    elif arguments.sequence:
        allocation = _minimal(run, arguments.sequence)
    else:
        raise InputError(
            f"'{arguments.format}' deploys one allocation; choose it with --allocation, --budget or --sequence"
        )
    about = deploy(run, arguments.format, arguments.out, allocation, **loading(arguments))
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), **about}))
        return
    print(f"{len(allocation)} of {about['layers']} layers: {compact(allocation)}")
    print(strip(allocation, about["layers"]))
    measured = about["measured"]
    if measured is None:
        print("Quality: not measured in this run")
    else:
        print(
            f"Mean {measured['metric']} {measured['quality']:.3f}, full model {measured['full_quality']:.3f} "
            f"({measured_on(measured)}, scope {measured['scope']})"
        )
    if loss := prompts_differ(about["scope"]):
        print(f"Note: {loss}")
    for path in sorted(arguments.out.iterdir()):
        print(printable(str(path)))


def _minimal(run: Any, sequence: str) -> tuple[int, ...]:
    table = run.table("minimal_budgets")
    found = table[table["sequence"] == sequence]
    if found.empty:
        known = [str(name) for name in table["sequence"]]
        raise InputError(f"the run has no minimal budget of '{sequence}'{nearest_hint(sequence, known)}")
    return tuple(found["allocation"].iloc[0].tolist())
