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
        target.parent.mkdir(parents=True, exist_ok=True)
        _save_png(figure, files[0], origin)
        _save_pdf(figure, files[1], origin)
        _save_csv(table, files[2], origin)
    except OSError as error:
        message = f"cannot write figures to '{target.parent}' ({error.strerror}); give another folder"
        raise InputError(message) from error
    return files


@styled()
def _save_png(figure: Figure, file: Path, origin: str) -> None:
    figure.savefig(file, dpi=150, metadata={"Software": "layer-oracle", "Description": origin})


@styled()
def _save_pdf(figure: Figure, file: Path, origin: str) -> None:
    # Without a date, equal figures give equal bytes.
    about = {"Creator": "layer-oracle", "Producer": "matplotlib", "Keywords": origin, "CreationDate": None}
    figure.savefig(file, metadata=about)


def _save_csv(table: pd.DataFrame, file: Path, origin: str) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write(f"# {origin}\n")
        # Quoted, so that a `#` in a task's name starts no comment.
        table.to_csv(out, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
