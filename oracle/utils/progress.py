"""Progress: bars on the terminal and in notebooks, lines in files and pipes."""

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from oracle.utils.text import printable

__all__ = ["Advance", "Watch", "automatic", "log", "note", "notebook", "silent", "terminal"]

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
    """A progress bar with elapsed and remaining time on standard error, or `log` if that is no terminal.

    With 0 units, one line.
    """
    if not total:
        print(printable(description), file=sys.stderr)
        yield lambda count, remark: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        with log(description, total) as advance:
            yield advance
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
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, remark="")
        yield lambda count, remark: progress.update(task, advance=count, remark=printable(remark))


LINES_BETWEEN = 30.0
"""Least time between two lines of progress in a log, in seconds."""


@contextmanager
def log(description: str, total: int) -> Iterator[Advance]:
    """A line on standard error now and then, and one at the end: units done, elapsed time, about what is left."""
    begin, done, shown = time.monotonic(), 0, time.monotonic()

    def show(remark: str) -> None:
        nonlocal shown
        shown = time.monotonic()
        rest = f", about {_clock((shown - begin) * (total - done) / done)} left" if 0 < done < total else ""
        line = f"{description}: {done} of {total} in {_clock(shown - begin)}{rest}{remark and f' ({remark})'}"
        print(printable(line), file=sys.stderr, flush=True)

    def advance(count: int, remark: str) -> None:
        nonlocal done
        done += count
        if time.monotonic() - shown >= LINES_BETWEEN:
            show(remark)

    try:
        yield advance
    finally:
        show("")


def _clock(seconds: float) -> str:
    """A time as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


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
