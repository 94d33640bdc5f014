"""Tables as people read them, and their form on a terminal.

Model output is untrusted: it is printed as text, never as markup or control codes.
"""

import json
import math
import textwrap
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from analysis.formatting import average, between, decimals, number, percent, quality
from oracle.allocations import compact
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

MAX_TEXT = 120
"""Maximum number of characters of a text in a table on the terminal; the other formats hold all of it."""

NARROW = (8, 16)
"""Columns to which the first column of a table and its other texts may be folded before the table is split."""

WIDE = 24
"""Columns that the first column of a split table gets if that makes no further part."""

GAP = 2
"""Spaces between columns."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table for people.

    Attributes:
        heading: its words; a line end breaks them on the terminal.
        text: a record's text.
        is_number: whether it is right-aligned and never broken.
        drawn: a record's text on the terminal, where that differs.
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
        """The texts, a list per line; as on a terminal if `drawn`."""
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
    """Prints a table: headings are broken, then names folded, where the terminal is too narrow for it.

    Where that is not enough, the columns are printed in groups, each with the first column. Long texts are cut; a line
    says so.
    """
    out = console()
    cut: list[str] = []
    lines = table.cells(drawn=True)
    texts = [[_shown(line[place], column, cut) for line in lines] for place, column in enumerate(table.columns)]
    headings = [_lines(column.heading) for column in table.columns]
    whole = [_widest(each) for each in texts]
    if _total(max(one, _widest(heading)) for one, heading in zip(whole, headings, strict=True)) > out.width:
        headings = [_broken(column.heading, width) for column, width in zip(table.columns, whole, strict=True)]
    least = [
        max(_widest(heading), width)
        if column.is_number
        else max([min(width, NARROW[place > 0]), *map(cell_len, " ".join(heading).split())])
        for place, (column, width, heading) in enumerate(zip(table.columns, whole, headings, strict=True))
    ]
    is_number = [column.is_number for column in table.columns]
    for group in _groups(least, is_number, whole[0] if whole else 0, out.width):
        grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for place in group:
            fits = is_number[place] and least[place] <= out.width
            justify: Literal["left", "right"] = "right" if is_number[place] else "left"
            grid.add_column(Text("\n".join(headings[place])), justify=justify, no_wrap=fits, overflow="fold")
        for line in zip(*(texts[place] for place in group), strict=True):
            grid.add_row(*map(Text, line))
        out.print(grid)
    if cut:
        fields = ", ".join(f"'{name}'" for name in dict.fromkeys(cut))
        show_line(f"Texts of {fields} are cut at {MAX_TEXT} characters; --csv, --markdown and --json hold all of them.")


def on_one_line(text: str) -> str:
    """Untrusted text on one line, without control characters."""
    return printable(text.replace("\n", " / "))


def _shown(text: str, column: Column, cut: list[str]) -> str:
    """A text on one line; adds the heading to `cut` if it is too long."""
    line = on_one_line(text)
    if column.is_number or column.drawn or len(line) <= MAX_TEXT:
        return line
    cut.append(printable(column.heading.replace("\n", " ")))
    return line[: MAX_TEXT - 1] + "…"


def _lines(text: str) -> list[str]:
    """The lines of a text without control characters."""
    return [printable(line) for line in text.split("\n")]


def _widest(lines: Seq[str]) -> int:
    return max(map(cell_len, lines), default=0)


def _total(widths: Any) -> int:
    each = list(widths)
    return sum(each) + GAP * (len(each) - 1)


def _broken(heading: str, width: int) -> list[str]:
    """A heading in lines as wide as the cells below it, or as its longest word."""
    heading = printable(heading.replace("\n", " "))
    width = max([width, *map(len, heading.split()), 1])
    return textwrap.wrap(heading, width, break_long_words=False, break_on_hyphens=False) or [""]


def _groups(least: Seq[int], is_number: Seq[bool], first: int, width: int) -> list[list[int]]:
    """Columns that fit beside each other, in as few groups as possible; all begin with the first column.

    Its texts of `first` columns are folded no more than it takes to keep groups, and those with numbers, that few.
    """

    def count(groups: list[list[int]]) -> tuple[int, int]:
        return len(groups), sum(any(is_number[place] for place in group[1:]) for group in groups)

    fewest = _packed(least, width)
    if len(fewest) > 1:
        for wide in range(min(first, WIDE), least[0], -1):
            if count(groups := _packed([wide, *least[1:]], width)) == count(fewest):
                return groups
    return fewest


def _packed(least: Seq[int], width: int) -> list[list[int]]:
    groups, used = [[0]] if least else [], least[0] if least else 0
    for place in range(1, len(least)):
        if len(groups[-1]) > 1 and used + GAP + least[place] > width:
            groups.append([0])
            used = least[0]
        groups[-1].append(place)
        used += GAP + least[place]
    return groups


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
