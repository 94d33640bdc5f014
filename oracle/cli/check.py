"""`oracle check`: whether a stored run is whole, consistent and reproducible."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, command, loading, progress
from oracle.errors import InputError
from oracle.utils.text import printable

__all__ = ["add_check"]

EPILOG = """\
checks, without the model: every file against its digest in RUN/index.json; links; files that are not listed; types and
ranges of manifest and summary; sequences against the data hash; results against the evaluations. Exit code 1 on a
problem. Digests detect damage and careless edits; an editor who renews them is not detected, except by --recompute.
"""


def add_check(commands: Any) -> None:
    """Adds `oracle check`."""
    about = "Check that a run is whole and consistent, say which versions wrote it, and compute outcomes again."
    parser = command(commands, "check", _run_check, about)
    parser.epilog = EPILOG
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--recompute", type=int, metavar="N", help="compute N random outcomes again with the model and compare them"
    )
    parser.add_argument(
        "--renew", action="store_true", help="first accept all files as they are: write a new index of their digests"
    )
    settings = Settings(parser)
    settings.add("--model", help="the run's model, if not at its name in the run; required with --trust-remote-code")
    add_device(settings, " (default: the run's setting)")
    add_trust(settings)
    add_quiet(parser)


def _run_check(arguments: argparse.Namespace) -> int:
    how = loading(arguments)
    if arguments.recompute is not None and arguments.recompute < 1:
        raise InputError(f"--recompute needs at least 1, not {arguments.recompute}")

    from oracle.pipeline.run_check import check_run, recompute, renew

    if arguments.renew:
        renew(arguments.folder)
    found = check_run(arguments.folder)
    if arguments.recompute is not None and not found.problems:
        recompute(arguments.folder, arguments.recompute, found, watch=progress(arguments), **how)
    if arguments.json:
        print(json.dumps({"run": str(arguments.folder), "whole": not found.problems, **asdict(found)}))
        return 1 if found.problems else 0
    for line in [*found.problems, *(f"note: {note}" for note in found.notes)]:
        print(printable(line))
    for writer in found.writers:
        versions = writer["versions"]
        commit = f", commit {writer['commit']}" if writer["commit"] else ""
        print(
            printable(
                f"{writer['files']} files by layer-oracle {versions.get('layer-oracle', 'unknown')}, torch "
                f"{versions.get('torch', 'unknown')}, transformers {versions.get('transformers', 'unknown')}{commit}"
            )
        )
    if found.recomputed:
        print(f"{found.equal} of {found.recomputed} recomputed outcomes are equal.")
    verdict = f"{len(found.problems)} problems" if found.problems else "whole and consistent"
    print(printable(f"{arguments.folder}: {verdict} ({found.files} files, {found.bytes / 2**20:.1f} MiB)."))
    return 1 if found.problems else 0
