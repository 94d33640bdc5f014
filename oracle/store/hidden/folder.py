"""The files of a store: which they are, when each was used last, and which of them have to go.

The time of a file is that of its last use. It comes from a clock of the folder's own, which never goes back.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from oracle.store.hidden.key import SUFFIX

__all__ = ["DAMAGED", "File", "damaged", "evict", "mark_used", "shards", "tidy"]

DAMAGED = "damaged"
CLOCK = "clock"
OURS = re.compile(r"[0-9a-f]{40}" + re.escape(SUFFIX))
FOLDERS = "*/[0-9a-f][0-9a-f]"
ABANDONED = 3600.0
"""Seconds after which a file that was not finished is given up."""


@dataclass(frozen=True, order=True)
class File:
    """A file as the system sees it; files sort by their last use.

    Attributes:
        used: when it was used last; 0 if it never will be again.
        path: where it is.
        bytes: its size.
    """

    used: int
    path: Path = field(compare=False)
    bytes: int = field(compare=False)

    @property
    def model(self) -> str:
        """The folder of its model."""
        return self.path.parents[1].name


def shards(folder: Path) -> Iterator[File]:
    """Every file of the store and no other, whatever else lies in the folder."""
    for path in folder.glob(f"{FOLDERS}/*{SUFFIX}"):
        if OURS.fullmatch(path.name):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield File(status.st_mtime_ns, path, status.st_size)


def damaged(folder: Path) -> Iterator[File]:
    """The files that were set aside."""
    for path in sorted((folder / DAMAGED).glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):
            yield File(0, path, path.stat().st_size)


def mark_used(folder: Path, path: Path) -> None:
    """Notes that a file was used now: later than every use before, even if the machine's clock was set back."""
    clock = folder / CLOCK
    with suppress(OSError):  # the file may just have been evicted, and the folder may be read-only
        if not clock.exists():
            clock.touch()
        now = max(time.time_ns(), clock.stat().st_mtime_ns + 1000)
        os.utime(clock, ns=(now, now))
        os.utime(path, ns=(now, now))


def evict(files: Iterable[File], limit: int) -> tuple[int, int]:
    """Deletes what was not used for the longest time until the rest fits; how many files, and their bytes.

    A file that somebody has mapped stays readable for them.
    """
    waiting = sorted(files)
    left = sum(file.bytes for file in waiting)
    count = freed = 0
    for file in waiting:
        if left - freed <= limit:
            break
        file.path.unlink(missing_ok=True)
        count, freed = count + 1, freed + file.bytes
    return count, freed


def tidy(folder: Path) -> None:
    """Deletes what processes that were killed did not finish."""
    for path in folder.glob(f"{FOLDERS}/.*{SUFFIX}.*.tmp"):
        with suppress(FileNotFoundError):
            if abs(time.time() - path.stat().st_mtime) > ABANDONED:
                path.unlink()
