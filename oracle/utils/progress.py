"""Progress on the terminal: what is being done, how far it is, how long it will take."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from oracle.utils.text import printable

__all__ = ["Advance", "Watch", "note", "silent", "terminal"]

Advance = Callable[[int, str], None]
"""Called with how much is done more, and a remark to show beside the bar."""

Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress display: what is being done, and how many units there are. Without units it is a line of its own."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda count, remark: None


def note(watch: Watch, line: str) -> None:
    """Shows a line of its own."""
    with watch(line, 0):
        pass


@contextmanager
def terminal(description: str, total: int) -> Iterator[Advance]:
    """A bar with elapsed time and time left, on standard error; of no units, a plain line."""
    if not total:
        print(printable(description), file=sys.stderr)
        yield lambda count, remark: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # A remark is an id out of the data: nothing in it may count as markup.
        TextColumn("{task.fields[remark]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, remark="")
        yield lambda count, remark: progress.update(task, advance=count, remark=printable(remark))
