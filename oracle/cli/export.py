"""`oracle export`: a run as a data set."""

import argparse
import json
from pathlib import Path
from typing import Any

from oracle.cli.parsing import command
from oracle.utils.text import printable

__all__ = ["add_export"]

FORMATS = """\
formats (each a folder with a README that explains the fields, and a manifest):
  hf     Parquet files that datasets.load_dataset opens: sequences with minimal allocations, and frontiers
  drllm  labels.jsonl: per layer 0 (skip), 1 (run) or 2 (repeat), the input of router training code
  jsonl  sequences.jsonl: one object per sequence, its frontier included
"""


def add_export(commands: Any) -> None:
    """Adds `oracle export`."""
    parser = command(commands, "export", _run_export, "Export a finished run as a data set; needs no model.")
    parser.epilog = FORMATS
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--format", required=True, help="hf, drllm or jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="new folder to write")


def _run_export(arguments: argparse.Namespace) -> None:
    from oracle.export import export
    from oracle.store import Run

    manifest = export(Run.open(arguments.folder), arguments.format, arguments.out)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), **manifest}))
        return
    print(f"{manifest['sequences']} sequences, {manifest['zero_quality']} of them where the full model scores zero")
    if manifest.get("not_minimal"):
        print(f"{manifest['not_minimal']} have labels above their minimal budget, which labels cannot express")
    for name in ("README.md", "manifest.json", *manifest["digests"]):
        print(printable(str(arguments.out / name)))
