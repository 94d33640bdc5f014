"""A size-limited store of hidden states that many processes read and write.

One file per key, named by its hash: the folder is the index. Files are written atomically (scratch file, then rename),
so no lock is needed.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from oracle.errors import InputError
from oracle.store.hidden.folder import DAMAGED, File, damaged, evict, mark_used, shards, tidy
from oracle.store.hidden.key import Key
from oracle.store.hidden.shard import DamagedError, Entry, States, map_states, pack, read_entry, write_shard
from oracle.utils.text import nearest_hint

__all__ = ["LIMIT", "HiddenStore", "Usage"]

LIMIT = 4 * 2**30
"""Default size limit, in bytes."""

EVICTION_TARGET = 0.9
"""Share of the limit that an eviction leaves, so that not every new file causes one."""

RESCAN_AFTER = 1 / 16
"""Share of the limit that may be written before the folder is scanned again, because other processes write too."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Stored states of one model.

    Attributes:
        model: name of its folder: fingerprint and dtype.
        name: display name of the model.
        shards: number of files.
        bytes: their total size.
    """

    model: str
    name: str
    shards: int
    bytes: int


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


class HiddenStore:
    """Hidden states by key.

    Failures never stop the computation: unreadable states are computed again, states that cannot be written are not
    stored, and a warning is issued.

    Args:
        folder: folder of the store; created when needed.
        limit: maximum size in bytes; the least recently used files are deleted first. Concurrent writers may each
            exceed it by a sixteenth.
        warn: called with a message for damaged files and failed writes.

    Attributes:
        damaged: damaged files found by this instance.

    Raises:
        InputError: if the path is a file.
    """

    def __init__(self, folder: Path | str, limit: int = LIMIT, warn: Callable[[str], None] = _warn) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.damaged: list[Path] = []
        self._warn = warn
        self._warned: set[str] = set()
        self._bytes: int | None = None
        self._written = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"a folder is required for hidden states, but '{folder}' is a file; choose another --cache"
            )

    def get(self, key: Key, states: slice = slice(None)) -> States | None:
        """The states of a key (I, T, D), memory-mapped and verified; None if they are not stored.

        A damaged file is set aside. The returned states stay readable even if the file is deleted.

        Args:
            key: key of the states.
            states: contiguous selection of states; nothing else is read.
        """
        path = self.folder / key.path
        try:
            with path.open("rb") as file, self._setting_aside(path, file):
                entry = read_entry(file)
                if entry.key != key:
                    raise DamagedError("it contains the states of another key")
                found = map_states(file, entry, *_bounds(states, entry.shape[0]))
        except (FileNotFoundError, DamagedError):
            return None
        except OSError as error:
            self._warn_once("read", error)
            return None
        mark_used(self.folder, path)
        return found

    def put(self, key: Key, states: States, *, name: str = "") -> None:
        """Stores states (I, T, D), replacing those of the same key.

        Args:
            key: key of the states.
            states: float64, float32 or float16, or the bits of bfloat16 as uint16.
            name: display name of the model.
        """
        path = self.folder / key.path
        states = np.ascontiguousarray(states)
        header = pack(key, name, states)
        size = len(header) + states.nbytes
        try:
            if not self._make_room(size):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            write_shard(path, header, states)
        except OSError as error:
            self._warn_once("store", error)
            return
        self._bytes = (self._bytes or 0) + size
        self._written += size
        mark_used(self.folder, path)

    def entries(self) -> Iterator[Entry]:
        """Headers of the stored files, least recently used first; damaged ones are set aside."""
        for file in sorted(shards(self.folder)):
            if (entry := self._check(file.path, whole=False)) is not None:
                yield entry

    def usage(self) -> list[Usage]:
        """Stored states per model."""
        by_model: dict[str, list[File]] = defaultdict(list)
        for file in shards(self.folder):
            by_model[file.model].append(file)
        return [
            Usage(model=model, name=_name(files), shards=len(files), bytes=sum(file.bytes for file in files))
            for model, files in sorted(by_model.items())
        ]

    def set_aside(self) -> list[Path]:
        """Damaged files that were set aside, by any process, and not deleted yet."""
        return [file.path for file in damaged(self.folder)]

    def verify(self) -> int:
        """Reads every file and sets aside damaged ones (see `damaged`); returns the number of files."""
        files = list(shards(self.folder))
        for file in files:
            self._check(file.path, whole=True)
        return len(files)

    def prune(self, limit: int = 0, *, model: str | None = None) -> tuple[int, int]:
        """Deletes files, damaged and then least recently used ones first, until at most `limit` bytes are left.

        Args:
            limit: size in bytes.
            model: name, or start of the fingerprint, of a model; only its files count and are deleted.

        Returns:
            Number of deleted files, and their bytes.

        Raises:
            InputError: if no states of the model are stored.
        """
        self._bytes = None
        tidy(self.folder)
        if model is None:
            return evict([*damaged(self.folder), *shards(self.folder)], limit)
        usage = self.usage()
        wanted = {each.model for each in usage if model and (model == each.name or each.model.startswith(model))}
        if not wanted:
            known = ", ".join(f"'{each.name}' ({each.model})" for each in usage) or "no model"
            hint = nearest_hint(model, [each.name for each in usage])
            raise InputError(
                f"--model needs a model with stored hidden states, not '{model}'; stored are those of {known}{hint}"
            )
        return evict([file for file in shards(self.folder) if file.model in wanted], limit)

    def _check(self, path: Path, *, whole: bool) -> Entry | None:
        """The header of a file; None if it was deleted, or is damaged and set aside."""
        with suppress(FileNotFoundError, DamagedError), path.open("rb") as file, self._setting_aside(path, file):
            entry = read_entry(file)
            if self.folder / entry.key.path != path:
                raise DamagedError("its name does not match its key")
            if whole:
                map_states(file, entry, 0, entry.shape[0])
            return entry
        return None

    @contextmanager
    def _setting_aside(self, path: Path, file: BinaryIO) -> Iterator[None]:
        """Moves the file away on `DamagedError`, unless another process has replaced it."""
        try:
            yield
        except DamagedError as error:
            self.damaged.append(path)
            target = self.folder / DAMAGED / path.name
            with suppress(OSError):
                target.parent.mkdir(exist_ok=True)
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    path.replace(target)
            self._warn(f"hidden states in '{path}' are damaged ({error}); the file is set aside in '{target.parent}'")
            raise

    def _warn_once(self, what: str, error: OSError) -> None:
        """Warns of a failed operation, once per message."""
        message = f"cannot {what} hidden states in '{self.folder}' ({error.strerror}); continuing without them"
        if message not in self._warned:
            self._warned.add(message)
            self._warn(message)

    def _make_room(self, size: int) -> bool:
        """Deletes old files until `size` more bytes fit; False if `size` exceeds the limit."""
        if size > self.limit:
            return False
        if self._bytes is None or self._written > self.limit * RESCAN_AFTER or self._bytes + size > self.limit:
            files = [*damaged(self.folder), *shards(self.folder)]
            self._bytes, self._written = sum(file.bytes for file in files), 0
            if self._bytes + size > self.limit:
                tidy(self.folder)
                self._bytes -= evict(files, max(0, int(self.limit * EVICTION_TARGET) - size))[1]
        return True


def _name(files: list[File]) -> str:
    """The name of the model, from the first readable file."""
    for file in files:
        with suppress(OSError, DamagedError), file.path.open("rb") as opened:
            return read_entry(opened).name
    return ""


def _bounds(states: slice, count: int) -> tuple[int, int]:
    first, stop, step = states.indices(count)
    if step != 1 or first >= stop:
        raise InputError(f"a contiguous selection of at least one of {count} states is required, not {states}")
    return first, stop
