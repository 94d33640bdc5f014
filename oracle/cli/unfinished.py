"""Notes on standard error about runs whose search has not ended, and about files that are older than their run."""

import argparse
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from oracle.errors import InputError
from oracle.utils.text import printable

__all__ = ["note", "note_older", "note_unfinished", "runs_named"]

WRITERS = ("demo", "search", "check", "runs")
"""Commands that continue runs, or state in their own words which ones are unfinished."""

VIEWS = {"report*.html": "report", "figures*": "figures"}
"""Files and folders in a run that a search does not write -> the command that does."""


def note(text: str) -> None:
    """Prints a note on standard error, on one line."""
    print(f"oracle: note: {printable(text)}", file=sys.stderr)


def runs_named(arguments: argparse.Namespace) -> list[Path]:
    """The run folders that a command line names."""
    from oracle.store.index import MANIFEST

    named = [getattr(arguments, name, None) for name in ("folder", "resume", "prior", "against")]
    each = [folder for folder in [*named, *getattr(arguments, "folders", ())] if folder is not None]
    return [folder for folder in dict.fromkeys(each) if (folder / MANIFEST).is_file()]


def note_unfinished(arguments: argparse.Namespace) -> None:
    """Says, for each run that a command has read, whether its numbers are of an unfinished search."""
    if arguments.command in WRITERS:
        return
    for folder in runs_named(arguments):
        if not (folder / "summary.json").is_file():
            with suppress(InputError):  # not a run, or damaged where the command did not read
                _note(folder)


def _note(folder: Path) -> None:
    from oracle.store import Run
    from oracle.store.resuming import resume_command

    run = Run.open(folder)
    if run.complete:
        return
    ended = f" after {len(run.certificates())} of {len(run.sequences())} sequences" if run.has("sequences") else ""
    note(
        f"the search of '{folder}' has not ended{ended}: numbers are of what is stored so far; continue with: "
        f"{resume_command(folder)}"
    )


def note_older(folder: Path, *, drawn: bool) -> None:
    """Says which reports and figures of a resumed run are older than its end; `drawn`: whether `figures` is new."""
    for pattern, command in VIEWS.items():
        for path in sorted(folder.glob(pattern)):
            if not (drawn and path.name == "figures"):
                again = f"oracle {command} {shlex.quote(str(folder))}"
                note(f"'{path}' is older than the end of the search; write it anew with: {again}")
