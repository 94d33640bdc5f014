"""Files and folders replaced whole or not at all, and removal of what killed processes left behind.

Everything is written under a scratch name first. The writer holds a lock on the scratch file, so that other processes
can tell a live one from an abandoned one, whatever the host or process id.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oracle.errors import InputError

__all__ = ["is_scratch", "replace_folder", "replace_whole", "scratch_folder", "tidy", "tidy_tree"]

SCRATCH = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.oracle\.tmp", re.DOTALL)
"""Name of a scratch file or folder."""

LONGEST_STEM = 100
"""Characters of the target's name in a scratch name, which may be at most 255 bytes long."""

STALE_AFTER = 3600.0
"""Age in seconds after which a scratch file counts as abandoned on a file system without locks."""


def replace_whole(path: Path, write: Callable[[Path], Any], name: Callable[[Path], Path] | None = None) -> Path:
    """Writes a scratch file, syncs it to disk and renames it, so that readers see the old file or the new one.

    A link at the path is replaced, never followed. Abandoned scratch files in the folder are deleted.

    Args:
        path: the file.
        write: writes the scratch file at the path it receives.
        name: returns the target path, if it depends on the content of the scratch file.

    Returns:
        The path of the target.

    Raises:
        InputError: if the path is a device, a pipe or a folder.
    """
    _require_file(path)
    tidy(path.parent)
    with _scratch(path, folder=False) as scratch:
        write(scratch)
        _sync(scratch)
        target = name(scratch) if name else path
        scratch.replace(target)
        _sync(target.parent)
    return target


def replace_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a scratch folder, syncs its files to disk and renames it; the path must be free or an empty folder.

    Args:
        path: the folder.
        write: fills the scratch folder that it receives.
    """
    target = path.resolve()
    if target.is_mount():
        raise InputError(f"'{path}' is a mount point, which cannot be replaced; name a new folder inside it")
    tidy(target.parent)
    with _scratch(target, folder=True) as scratch:
        write(scratch)
        for each in [*scratch.rglob("*"), scratch]:
            _sync(each)
        scratch.rename(target)
        _sync(target.parent)


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A temporary folder, deleted at the end; those that killed processes left in the same place are deleted first."""
    tidy(parent, name)
    with _scratch(parent / name, folder=True, mode=0o700) as scratch:
        yield scratch


def is_scratch(path: Path) -> bool:
    """Whether a path is named like a scratch file."""
    return SCRATCH.fullmatch(path.name) is not None


def tidy(folder: Path, name: str = "") -> None:
    """Deletes abandoned scratch files and folders in a folder, as far as permitted.

    Args:
        folder: the folder.
        name: only those of a target whose name starts with this.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(f".{name}") and SCRATCH.fullmatch(entry.name):
                _remove_abandoned(Path(entry.path))


def tidy_tree(folder: Path) -> None:
    """Deletes abandoned scratch files in a folder and all folders below it, without following links."""
    for inner, _, _ in os.walk(folder):
        tidy(Path(inner))


def _require_file(path: Path) -> None:
    # Renaming over /dev/null or /dev/stdout would replace the device for every process.
    if path.exists() and not path.is_file():
        raise InputError(f"'{path}' is not a regular file and cannot be written as one; choose another path")


@contextmanager
def _scratch(target: Path, *, folder: bool, mode: int = 0o777) -> Iterator[Path]:
    """Creates a locked scratch file or folder, and deletes it at the end unless it was renamed."""
    while True:
        scratch = target.with_name(f".{target.name[:LONGEST_STEM]}.{os.getpid()}-{secrets.token_hex(4)}.oracle.tmp")
        descriptor = _create(scratch, folder=folder, mode=mode)
        with suppress(OSError):  # a file system without locks: see STALE_AFTER
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if scratch.exists():
            break
        os.close(descriptor)  # another process took it for abandoned before it was locked
    try:
        yield scratch
    finally:
        _delete(scratch)
        os.close(descriptor)


def _create(scratch: Path, *, folder: bool, mode: int) -> int:
    if folder:
        scratch.mkdir(mode=mode)
        return os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    return os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _is_abandoned(descriptor):
                _delete(path)
        finally:
            os.close(descriptor)


def _is_abandoned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return abs(time.time() - os.fstat(descriptor).st_mtime) > STALE_AFTER
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
