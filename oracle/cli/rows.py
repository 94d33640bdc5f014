"""Rows with any columns: an aligned table, CSV, or values for JSON. Texts are untrusted."""

import csv
import json
import math
import sys
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.allocations import compact
from oracle.utils.text import printable

__all__ = ["plain", "show_csv", "show_line", "show_rows"]

LONGEST = 120
"""Characters of a text that a table shows; CSV and JSON have all of it."""

UNBROKEN = 10_000
"""Columns of a line that goes to a file or a pipe, where nothing is to be wrapped."""

Row = Mapping[str, Any]


def show_rows(columns: Seq[str], rows: Seq[Row]) -> None:
    """A table: numbers to the right and never broken, allocations as ranges of layers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        numeric = all(row[name] is None or isinstance(row[name], (int, float, Decimal)) for row in rows)
        table.add_column(
            Text(printable(name)), justify="right" if numeric and rows else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_cell(name, row[name])) for name in columns))
    _print(table)


def show_line(text: str) -> None:
    """A sentence, wrapped to the terminal."""
    _print(Text(printable(text)))


def _print(shown: Table | Text) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=UNBROKEN)).print(shown)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, Decimal)):
        return f"{value:.4g}"
    if name == "allocation" and isinstance(value, (list, tuple)):
        return compact(value)
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    line = printable(text.replace("\n", " / "))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def show_csv(columns: Seq[str], rows: Seq[Row]) -> None:
    """CSV with a header; lists and structures as JSON, what is missing as nothing."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    shown = printable if sys.stdout.isatty() else str
    writer.writerow([shown(name) for name in columns])
    for row in rows:
        values = [plain(row[name]) for name in columns]
        cells = [json.dumps(value) if isinstance(value, (list, dict, bool)) else value for value in values]
        writer.writerow([shown(cell) if isinstance(cell, str) else cell for cell in cells])


def plain(value: Any) -> Any:
    """The value as JSON can say it: None for what is no finite number, text for dates and the like."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
