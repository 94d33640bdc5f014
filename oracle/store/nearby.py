"""What to say where a run is named and none is found: what stands there instead, and the nearest run."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from oracle.store.index import MANIFEST
from oracle.utils.text import nearest_names

__all__ = ["no_run"]

GIVE = "give a folder written by 'oracle search' or 'oracle demo'"

USUAL = Path("runs")
"""Folder into which searches write by default."""


def no_run(folder: Path) -> str:
    """Why a path is no run, and the remedy, for a path without a readable manifest."""
    required = f"a run folder is required, but '{folder}'"
    with suppress(OSError):
        if (folder / MANIFEST).is_file():
            return f"{required} has no readable {MANIFEST}; {GIVE}"
        if folder.is_file():
            give = f"give its folder '{folder.parent}'" if (folder.parent / MANIFEST).is_file() else GIVE
            return f"{required} is a file; {give}"
        if folder.is_dir():
            if next(_runs(folder), None) is not None:
                return f"{required} is a folder of runs; 'oracle runs {folder}' lists them"
            return f"{required} has no {MANIFEST}; {GIVE}"
    return f"{required} does not exist; {_nearest(folder)}"


def _runs(folder: Path) -> Iterator[Path]:
    """The runs directly in a folder; none if it cannot be read."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if (path / MANIFEST).is_file():
                yield path


def _nearest(folder: Path) -> str:
    places = list(dict.fromkeys((folder.parent, USUAL)))
    known = {run.name: run for place in reversed(places) for run in _runs(place)}
    if found := nearest_names(folder.name, known):
        return f"nearest: '{known[found[0]]}'"
    if known:
        return f"'oracle runs {next(iter(known.values())).parent}' lists those that do"
    return GIVE
