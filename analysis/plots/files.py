"""Figures, their numbers, captions and provenance on disk; equal figures give equal bytes."""

import csv
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.experiment import InputError
from analysis.plots.fonts import said_once
from analysis.plots.style import FigureConfig, styled
from analysis.plots.tex import check_tex, pgf_code
from oracle.store.files import make_folder, write_whole
from oracle.utils.text import printable, spreadsheet_text

__all__ = ["save", "without_paths"]

PRIVATE = ("host", "hostname", "user", "username", "cwd", "folder", "command")
"""Keys of provenance that may tell who made a figure, and where."""

PATH = re.compile(r"(?:(?<=^)|(?<=[\s:=,'\"(]))(?:file://)?(?:~|\.{1,2})?(?:[A-Za-z]:\\|/(?!/)|\\\\)[^\s:,'\")]+")
"""A local path within a text: absolute, of a home folder, or relative with a leading dot; not an address of the web."""


def save(
    table: pd.DataFrame,
    figure: Figure,
    path: Path | str,
    provenance: Mapping[str, Any],
    *,
    caption: str = "",
    config: FigureConfig | None = None,
) -> list[Path]:
    """Writes a figure with its numbers (CSV), caption (text) and provenance (JSON).

    Args:
        table: the numbers.
        figure: the figure.
        path: without suffix; missing folders are created.
        provenance: written beside the figure, and into PNG (`Description`), PDF (`Keywords`), SVG (`Description`) and
            PGF (first line); without local paths.
        caption: the words that belong below the figure; no file if empty.
        config: formats and style.

    Returns:
        The files: one per format, then `.csv`, `.txt` and `.json`.

    Raises:
        InputError: if the files cannot be written, or PGF is wanted and TeX is not installed or cannot set a text.
    """
    config = config or FigureConfig()
    if "pgf" in config.formats:
        with styled(config):
            check_tex()
    target, provenance = Path(path), without_paths(provenance)
    origin = json.dumps(provenance, sort_keys=True, default=str)
    writers: dict[str, Callable[[Path], None]] = {}
    for name in dict.fromkeys(config.formats):
        writers[name] = partial(_save_picture, figure, kind=name, origin=origin, config=config)
    writers["csv"] = lambda scratch: _save_csv(table, scratch)
    if caption:
        writers["txt"] = lambda scratch: _save_text(scratch, printable(caption))
    writers["json"] = lambda scratch: _save_text(scratch, json.dumps(provenance, sort_keys=True, default=str, indent=2))
    files = [target.with_name(f"{target.name}.{suffix}") for suffix in writers]
    try:
        make_folder(target.parent)
        for file, write in zip(files, writers.values(), strict=True):
            write_whole(file, write)
    except OSError as error:
        message = f"cannot write figures to '{target.parent}' ({error.strerror}); give another folder"
        raise InputError(message) from error
    return files


def without_paths(value: Any) -> Any:
    """Provenance with local paths cut to their last part, and without names of machines, users and folders."""
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in value.items() if str(key).lower() not in PRIVATE}
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str):
        if value.startswith(("/", "~", "\\\\")):
            return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        return PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
    return value


def _save_picture(figure: Figure, file: Path, *, kind: str, origin: str, config: FigureConfig) -> None:
    # Without a date, equal figures give equal bytes.
    about: dict[str, dict[str, Any]] = {
        "png": {"Software": "layer-oracle", "Description": origin},
        "pdf": {"Creator": "layer-oracle", "Producer": "matplotlib", "Keywords": origin, "CreationDate": None},
        "svg": {"Creator": "layer-oracle", "Description": origin, "Date": None},
    }
    with styled(config), said_once():
        if kind == "pgf":
            _save_text(file, f"% {origin}\n{pgf_code(figure)}")
        else:
            figure.savefig(file, format=kind, metadata=about[kind])


def _save_text(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write(text.rstrip("\n") + "\n")


def _save_csv(table: pd.DataFrame, file: Path) -> None:
    texts = table.select_dtypes(exclude="number").columns
    table = table.assign(**{name: table[name].map(_cell) for name in texts})
    with file.open("w", encoding="utf-8", newline="") as out:
        table.to_csv(out, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _cell(value: Any) -> Any:
    """A text that no spreadsheet runs; other values as they are."""
    return spreadsheet_text(value) if isinstance(value, str) else value
