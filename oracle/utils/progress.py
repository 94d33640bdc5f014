"""Progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from oracle.utils.text import printable

__all__ = ["Advance", "Watch", "note", "silent", "terminal"]

Advance = Callable[[int, str], None]
"""Called with the number of units completed since the last call and a remark to show beside the bar."""

Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress display from a description and a number of units; with 0 units it prints one line."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda count, remark: None


def note(watch: Watch, line: str) -> None:
    """Prints one line."""
    with watch(line, 0):
        pass


@contextmanager
def terminal(description: str, total: int) -> Iterator[Advance]:
    """A progress bar with elapsed and remaining time on standard error; with 0 units, one line."""
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
        # Remarks contain ids from the data, which must not be read as markup.
        TextColumn("{task.fields[remark]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, remark="")
        yield lambda count, remark: progress.update(task, advance=count, remark=printable(remark))
