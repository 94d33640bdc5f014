"""Tables as people read them, and their form on a terminal.

Model output is untrusted: it is printed as text, never as markup or control codes.
"""

import json
import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from analysis.formatting import average, between, decimals, number, percent, quality
from oracle.allocations import compact
from oracle.cli.sheet import MAX_TEXT, Sheet, on_one_line
from oracle.utils.text import printable

__all__ = [
    "Column",
    "Row",
    "Table",
    "console",
    "counts",
    "decimal",
    "interval",
    "layers",
    "of_records",
    "on_one_line",
    "plain",
    "qualities",
    "shares",
    "show_line",
    "show_table",
    "words",
]

Row = Mapping[str, Any]
"""A record of a table, by field."""

UNWRAPPED = 10_000
"""Line width for files and pipes, where nothing is wrapped."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table for people.

    Attributes:
        heading: its words; a line end breaks them on the terminal.
        text: a record's text.
        is_number: whether it is right-aligned and never broken.
        drawn: a record's text on the terminal, where that differs and there is room for all of it on one line.
    """

    heading: str
    text: Callable[[Row], str]
    is_number: bool = True
    drawn: Callable[[Row], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: records for programs, and columns of text for people.

    Attributes:
        name: what its rows are; part of a file's name.
        rows: the records.
        columns: for people.
        fields: of the records, in order; None for those of the first one.
        section: field whose text stands above the rows that share it, which are indented below it.
        notes: what the columns and marks mean, in sentences; commands print them below the table.
    """

    name: str
    rows: Seq[Row]
    columns: Seq[Column]
    fields: Seq[str] | None = None
    section: str | None = None
    notes: Seq[str] = ()

    @property
    def names(self) -> list[str]:
        """Names of the fields."""
        return list(self.fields if self.fields is not None else self.rows[0] if self.rows else ())

    def cells(self, *, drawn: bool = False) -> list[list[str]]:
        """The texts, a list per line; those that columns draw on a terminal if `drawn`."""
        lines: list[list[str]] = []
        above: object = None
        for row in self.rows:
            texts = [((column.drawn if drawn else None) or column.text)(row) for column in self.columns]
            if self.section is not None:
                if row[self.section] != above:
                    above = row[self.section]
                    lines.append([str(above), *[""] * (len(texts) - 1)])
                texts[0] = f"  {texts[0]}"
            lines.append(texts)
        return lines


def words(heading: str, field: str, empty: str = "") -> Column:
    """A column of texts."""
    return Column(heading=heading, text=lambda row: str(row[field] or empty), is_number=False)


def _numbers(heading: str, field: str, form: Callable[[Any], str]) -> Column:
    return Column(heading=heading, text=lambda row: form(row[field]))


def counts(heading: str, field: str) -> Column:
    """A column of counts or their means."""
    return _numbers(heading, field, average)


def shares(heading: str, field: str) -> Column:
    """A column of fractions, as percentages."""
    return _numbers(heading, field, percent)


def decimal(heading: str, field: str, places: int) -> Column:
    """A column of numbers with that many decimals."""
    return _numbers(heading, field, partial(decimals, places=places))


def qualities(heading: str, field: str) -> Column:
    """A column of qualities."""
    return _numbers(heading, field, quality)


def interval(heading: str, field: str, form: Callable[[Any], str] = quality) -> Column:
    """A column of values followed by their 95 % intervals, from `field`, `field_low` and `field_high`."""

    def text(row: Row) -> str:
        ends = between(row[f"{field}_low"], row[f"{field}_high"], form)
        return form(row[field]) + (f" ({ends})" if ends else "")

    return Column(heading=heading, text=text)


def layers(field: str, units: int) -> Column:
    """A column of allocations: ranges of layers, on the terminal one cell per layer, filled if it runs."""
    return Column(
        heading="layers that run",
        text=lambda row: compact(row[field]),
        is_number=False,
        drawn=lambda row: _strip(row[field], units),
    )


def _strip(allocation: Seq[int], units: int) -> str:
    kept = set(allocation)
    return "".join("█" if unit in kept else "·" for unit in range(units))


def of_records(name: str, rows: Seq[Row], fields: Seq[str] | None = None) -> Table:
    """A table of records of any kind: a column per field, numbers on the right, allocations as ranges of layers."""
    known = list(fields if fields is not None else rows[0] if rows else ())
    columns = [
        Column(
            heading=field,
            text=partial(_any, field),
            is_number=bool(rows) and all(_numeric(row[field]) for row in rows),
        )
        for field in known
    ]
    return Table(name=name, rows=rows, columns=columns, fields=known)


def _numeric(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, Decimal))


def _any(field: str, row: Row) -> str:
    value = row[field]
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (float, Decimal)):
        return number(float(value))
    if field == "allocation" and isinstance(value, (list, tuple)):
        return compact(value)
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def show_table(table: Table) -> None:
    """Prints a table: headings are broken, then texts folded between words, where the terminal is too narrow for it.

    Where that is not enough, the columns are printed in groups, each with the first column. What columns draw is
    printed as text instead if it does not fit on one line, or makes a further group. Long texts are cut, and a line
    says so.
    """
    out = console()
    sheet = Sheet.of(table.columns, table.cells(drawn=True), out.width, drawn=True)
    if any(column.drawn for column in table.columns):
        other = Sheet.of(table.columns, table.cells(), out.width, drawn=False)
        if not sheet.fits or len(other.groups) < len(sheet.groups):
            sheet = other
    for group in sheet.groups:
        out.print(sheet.grid(group))
    if sheet.cut:
        fields = ", ".join(f"'{name}'" for name in dict.fromkeys(sheet.cut))
        show_line(f"Texts of {fields} are cut at {MAX_TEXT} characters; --csv, --markdown and --json hold all of them.")


def console() -> Console:
    """A console as wide as the terminal; without a terminal, lines are not wrapped."""
    found = Console()
    return found if found.is_terminal else Console(width=UNWRAPPED)


def show_line(text: str) -> None:
    """Prints a sentence, wrapped to the terminal."""
    console().print(Text(printable(text)))


def plain(value: Any) -> Any:
    """The value as a JSON value: None for NaN and infinity, text for dates and other types."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
