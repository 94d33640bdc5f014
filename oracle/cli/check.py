"""`oracle check`: whether a stored run is whole, consistent and reproducible."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Settings, add_device, add_quiet, add_trust, command, loading, progress
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.cli.tables import Table
    from oracle.pipeline.run_check import RunCheck

__all__ = ["add_check"]

EPILOG = """\
checks, without the model: every file against its digest in RUN/index.json; links; files that are not listed; types and
ranges of manifest and summary; sequences against the data hash; results against the evaluations. Exit code 1 on a
problem. Digests detect damage and careless edits; an editor who renews them is not detected, except by --recompute.
"""


def add_check(commands: Any) -> None:
    """Adds `oracle check`."""
    about = "Check that a run is whole and consistent, say which versions wrote it, and compute outcomes again."
    parser = command(commands, "check", _run_check, about, tables=True)
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

    from oracle.cli.formats import give
    from oracle.pipeline.run_check import check_run, recompute, renew

    if arguments.renew:
        renew(arguments.folder)
    found = check_run(arguments.folder)
    if arguments.recompute is not None and not found.problems:
        recompute(arguments.folder, arguments.recompute, found, watch=progress(arguments), **how)
    give(
        arguments,
        _tables(found),
        whole=lambda: {"run": str(arguments.folder), "whole": not found.problems, **asdict(found)},
        show=lambda: _show(found, arguments.folder),
    )
    return 1 if found.problems else 0


WRITER = ("files", "layer-oracle", "torch", "transformers", "commit")
"""Columns of the table of those who wrote files."""


def _tables(found: "RunCheck") -> list["Table"]:
    """The findings; the versions that wrote the files."""
    from oracle.cli.tables import of_records

    findings = [{"kind": "problem", "finding": one} for one in found.problems]
    findings += [{"kind": "note", "finding": one} for one in found.notes]
    writers = [
        {
            "files": writer["files"],
            **{name: writer["versions"].get(name) for name in ("layer-oracle", "torch", "transformers")},
            "commit": writer["commit"],
        }
        for writer in found.writers
    ]
    return [of_records("findings", findings, ["kind", "finding"]), of_records("writers", writers, WRITER)]


def _show(found: "RunCheck", folder: Path) -> None:
    from analysis.formatting import counted
    from oracle.cli.tables import show_line

    for line in [*found.problems, *(f"note: {note}" for note in found.notes)]:
        show_line(line)
    for writer in found.writers:
        versions = writer["versions"]
        commit = f", commit {writer['commit']}" if writer["commit"] else ""
        show_line(
            f"{counted(writer['files'], 'file')} by layer-oracle {versions.get('layer-oracle', 'unknown')}, torch "
            f"{versions.get('torch', 'unknown')}, transformers {versions.get('transformers', 'unknown')}{commit}"
        )
    if found.recomputed:
        show_line(f"{found.equal} of {counted(found.recomputed, 'recomputed outcome')} are equal.")
    verdict = counted(len(found.problems), "problem") if found.problems else "whole and consistent"
    show_line(f"{folder}: {verdict} ({counted(found.files, 'file')}, {found.bytes / 2**20:.1f} MiB).")
