"""Progress bars on the terminal and in notebooks."""

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from oracle.utils.text import printable

__all__ = ["Advance", "Watch", "automatic", "note", "notebook", "silent", "terminal"]

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


BETWEEN = 0.2
"""Least time between two updates of a bar in a notebook, in seconds."""


@contextmanager
def notebook(description: str, total: int) -> Iterator[Advance]:
    """A progress bar with the elapsed time below a notebook's cell, without widgets; with 0 units, one line."""
    from IPython.display import HTML, display

    if not total:
        display(HTML(html.escape(printable(description))))
        yield lambda count, remark: None
        return
    begin, done, shown = time.monotonic(), 0, 0.0

    def bar(remark: str) -> Any:
        minutes, seconds = divmod(int(time.monotonic() - begin), 60)
        text = html.escape(printable(f"{done}/{total} {minutes}:{seconds:02d} {remark}"))
        return HTML(f'{html.escape(printable(description))} <progress value="{done}" max="{total}"></progress> {text}')

    handle: Any = display(bar(""), display_id=True)

    def advance(count: int, remark: str) -> None:
        nonlocal done, shown
        done += count
        if done >= total or time.monotonic() - shown >= BETWEEN:
            shown = time.monotonic()
            handle.update(bar(remark))

    try:
        yield advance
    finally:
        handle.update(bar(""))


@contextmanager
def automatic(description: str, total: int) -> Iterator[Advance]:
    """As `notebook` in a notebook, and nothing elsewhere."""
    with (notebook if _in_notebook() else silent)(description, total) as advance:
        yield advance


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell: Any = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
