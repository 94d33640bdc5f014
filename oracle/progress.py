"""Progress on the terminal: what is being done, how far it is, how long it will take."""

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

from oracle.printable import printable

__all__ = ["Advance", "Watch", "silent", "terminal"]

Advance = Callable[[int, str], None]
"""Called with how much is done more, and a remark to show beside the bar."""

Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress display: what is being done, and how many units there are."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda count, remark: None


@contextmanager
def terminal(description: str, total: int) -> Iterator[Advance]:
    """A bar with elapsed time and time left, on standard error."""
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
