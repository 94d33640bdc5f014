"""The files of a store of hidden states: listing, time of last use, eviction.

The modification time of a file is its last use, taken from a clock file in the folder, which is monotonic.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from oracle.store.files import delete
from oracle.store.hidden.key import SUFFIX

__all__ = ["DAMAGED", "File", "damaged", "evict", "mark_used", "shards", "tidy"]

DAMAGED = "damaged"
CLOCK = "clock"
SHARD_NAME = re.compile(r"[0-9a-f]{40}" + re.escape(SUFFIX))
FOLDERS = "*/[0-9a-f][0-9a-f]"
STALE_AFTER = 3600.0
"""Age in seconds after which an unfinished file is deleted."""


@dataclass(frozen=True, order=True)
class File:
    """A stored file; files sort by their last use.

    Attributes:
        used: time of its last use, in nanoseconds; 0 for damaged files.
        path: its path.
        bytes: its size.
    """

    used: int
    path: Path = field(compare=False)
    bytes: int = field(compare=False)

    @property
    def model(self) -> str:
        """Name of its model's folder."""
        return self.path.parents[1].name


def shards(folder: Path) -> Iterator[File]:
    """The shards of the store; other files in the folder are ignored."""
    for path in folder.glob(f"{FOLDERS}/*{SUFFIX}"):
        if SHARD_NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield File(status.st_mtime_ns, path, status.st_size)


def damaged(folder: Path) -> Iterator[File]:
    """The damaged files that were set aside."""
    for path in sorted((folder / DAMAGED).glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):
            yield File(0, path, path.stat().st_size)


def mark_used(folder: Path, path: Path) -> None:
    """Sets a file's last use to now; later than every earlier use, even if the system clock was set back."""
    clock = folder / CLOCK
    with suppress(OSError):  # the file may just have been evicted, and the folder may be read-only
        if not clock.exists():
            clock.touch()
        now = max(time.time_ns(), clock.stat().st_mtime_ns + 1000)
        os.utime(clock, ns=(now, now))
        os.utime(path, ns=(now, now))


def evict(files: Iterable[File], limit: int) -> tuple[int, int]:
    """Deletes the least recently used files until the rest fits `limit` bytes; returns their number and bytes.

    A file stays readable for processes that have mapped it.
    """
    waiting = sorted(files)
    left = sum(file.bytes for file in waiting)
    count = freed = 0
    for file in waiting:
        if left - freed <= limit:
            break
        delete(file.path)
        count, freed = count + 1, freed + file.bytes
    return count, freed


def tidy(folder: Path) -> None:
    """Deletes the unfinished files of killed processes."""
    for path in folder.glob(f"{FOLDERS}/.*{SUFFIX}.*.tmp"):
        with suppress(FileNotFoundError):
            if abs(time.time() - path.stat().st_mtime) > STALE_AFTER:
                path.unlink()
