"""Figures and their numbers on disk, with their provenance; equal figures give equal bytes."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.experiment import InputError
from analysis.plots.style import styled
from oracle.store.files import make_folder, write_whole
from oracle.utils.text import spreadsheet_text

__all__ = ["save"]


def save(table: pd.DataFrame, figure: Figure, path: Path | str, provenance: Mapping[str, Any]) -> list[Path]:
    """Writes a figure as PNG (150 dpi) and PDF, and its numbers as CSV.

    Args:
        table: the numbers.
        figure: the figure.
        path: without suffix; missing folders are created.
        provenance: written into each file as JSON: PNG `Description`, PDF `Keywords`, and the CSV's first line after `#
            `, which `pandas.read_csv(path, comment="#")` skips.

    Returns:
        The three files.

    Raises:
        InputError: if the files cannot be written.
    """
    target, origin = Path(path), json.dumps(provenance, sort_keys=True, default=str)
    files = [target.with_name(f"{target.name}.{suffix}") for suffix in ("png", "pdf", "csv")]
    try:
        make_folder(target.parent)
        write_whole(files[0], lambda scratch: _save_png(figure, scratch, origin))
        write_whole(files[1], lambda scratch: _save_pdf(figure, scratch, origin))
        write_whole(files[2], lambda scratch: _save_csv(table, scratch, origin))
    except OSError as error:
        message = f"cannot write figures to '{target.parent}' ({error.strerror}); give another folder"
        raise InputError(message) from error
    return files


@styled()
def _save_png(figure: Figure, file: Path, origin: str) -> None:
    about = {"Software": "layer-oracle", "Description": origin}
    figure.savefig(file, format="png", dpi=150, metadata=about)


@styled()
def _save_pdf(figure: Figure, file: Path, origin: str) -> None:
    # Without a date, equal figures give equal bytes.
    about = {"Creator": "layer-oracle", "Producer": "matplotlib", "Keywords": origin, "CreationDate": None}
    figure.savefig(file, format="pdf", metadata=about)


def _save_csv(table: pd.DataFrame, file: Path, origin: str) -> None:
    texts = table.select_dtypes(exclude="number").columns
    table = table.assign(**{name: table[name].map(_cell) for name in texts})
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write(f"# {origin}\n")
        # Quoted, so that a `#` in a task's name starts no comment.
        table.to_csv(out, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _cell(value: Any) -> Any:
    """A text that no spreadsheet runs; other values as they are."""
    return spreadsheet_text(value) if isinstance(value, str) else value
