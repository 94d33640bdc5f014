"""The layout of a table on a terminal: what is broken where, and which columns stand beside each other."""

import re
import textwrap
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rich.cells import cell_len
from rich.table import Table as Grid
from rich.text import Text

from oracle.utils.text import printable

__all__ = ["MAX_TEXT", "Sheet", "on_one_line"]

MAX_TEXT = 120
"""Maximum number of characters of a text in a table on the terminal; the other formats hold all of it."""

NARROW = (8, 16)
"""Columns to which the first column of a table and its other texts may be folded before the table is split."""

WIDE = 24
"""Columns that the first column of a split table gets if that makes no further part, and the longest word with a digit
that is not broken in other columns."""

GAP = 2
"""Spaces between columns."""


class Shape(Protocol):
    """What the layout reads of a column; see `oracle.cli.tables.Column`."""

    @property
    def heading(self) -> str:
        """Its words."""

    @property
    def is_number(self) -> bool:
        """Whether it is right-aligned and never broken."""

    @property
    def drawn(self) -> object:
        """What draws its texts on the terminal; None if nothing does."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table laid out for a terminal.

    Attributes:
        width: of the terminal.
        headings: lines of each column's heading.
        texts: cells of each column.
        is_number: whether a column is right-aligned.
        is_fixed: whether a column is never broken.
        least: width of each column below which an id, a number or what is drawn would be broken.
        whole: width of each column in which nothing is folded.
        groups: places of the columns that stand beside each other.
        fits: whether all that is drawn has room on one line.
        cut: headings of columns with texts that were cut.
    """

    width: int
    headings: Seq[Seq[str]]
    texts: Seq[Seq[str]]
    is_number: Seq[bool]
    is_fixed: Seq[bool]
    least: Seq[int]
    whole: Seq[int]
    groups: Seq[Seq[int]]
    fits: bool
    cut: Seq[str]

    @classmethod
    def of(cls, columns: Seq[Shape], lines: Seq[Seq[str]], width: int, *, drawn: bool) -> "Sheet":
        """The layout of lines of cells, which hold what columns draw if `drawn`, else their texts."""
        cut: list[str] = []
        texts = [[_shown(line[place], column, cut) for line in lines] for place, column in enumerate(columns)]
        if not drawn:
            # Ranges of layers are folded between them.
            texts = [
                [text.replace(",", ", ") for text in each] if column.drawn else each
                for each, column in zip(texts, columns, strict=True)
            ]
        headings = [_lines(column.heading) for column in columns]
        cells = [_widest(each) for each in texts]
        if _total(max(one, _widest(heading)) for one, heading in zip(cells, headings, strict=True)) > width:
            headings = [_broken(column.heading, one) for column, one in zip(columns, cells, strict=True)]
        whole = [max(one, _widest(heading)) for one, heading in zip(cells, headings, strict=True)]
        is_number = [column.is_number for column in columns]
        is_fixed = [column.is_number or (drawn and column.drawn is not None) for column in columns]
        least = [
            one if fixed else max(_least(each, place), *map(cell_len, " ".join(heading).split()), 0)
            for place, (one, fixed, each, heading) in enumerate(zip(whole, is_fixed, texts, headings, strict=True))
        ]
        if least:
            # As wide as the longest id, unless no other column could stand beside it.
            ids = _widest([word for text in texts[0] for word in text.split()])
            least[0] = max(least[0], min(ids, width - GAP - max(least[1:], default=-GAP)))
        return cls(
            width=width,
            headings=headings,
            texts=texts,
            is_number=is_number,
            is_fixed=is_fixed,
            least=least,
            whole=whole,
            groups=_groups(least, is_number, whole[0] if whole else 0, width),
            fits=all(least[0] + GAP + least[place] <= width for place, one in enumerate(columns) if one.drawn),
            cut=cut,
        )

    def grid(self, group: Seq[int]) -> Grid:
        """Columns beside each other: as wide as they must be, and what is left to those that lack least."""
        widths = {place: min(self.least[place], self.width) for place in group}
        left = max(0, self.width - _total(widths.values()))
        for place in sorted(group, key=lambda place: self.whole[place] - widths[place]):
            more = min(left, max(0, self.whole[place] - widths[place]))
            widths[place] += more
            left -= more
        grid = Grid(box=None, pad_edge=False, padding=0, header_style="bold")
        for place in group:
            if place != group[0]:
                grid.add_column(width=GAP)
            fits = self.is_fixed[place] and self.least[place] <= self.width
            justify: Literal["left", "right"] = "right" if self.is_number[place] else "left"
            heading = Text("\n".join(self.headings[place]))
            grid.add_column(heading, justify=justify, no_wrap=fits, overflow="fold", width=widths[place])
        for line in zip(*(self.texts[place] for place in group), strict=True):
            first, *others = map(Text, line)
            grid.add_row(first, *(cell for other in others for cell in (Text(""), other)))
        return grid


def _least(texts: Seq[str], place: int) -> int:
    """Width to which the texts of a column may be folded; words with a digit stay whole."""
    numbers = [word for text in texts for word in text.split() if re.search(r"\d", word)]
    return max(min(_widest(texts), NARROW[place > 0]), min(_widest(numbers), WIDE))


def on_one_line(text: str) -> str:
    """Untrusted text on one line, without control characters."""
    return printable(text.replace("\n", " / "))


def _shown(text: str, column: Shape, cut: list[str]) -> str:
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
