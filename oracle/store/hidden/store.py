"""Hidden states that many processes read and write, kept under a size limit.

One file a key, named by its hash: the folder is the index. Files appear whole (written aside, then renamed), so that
nobody needs a lock.
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

__all__ = ["LIMIT", "HiddenStore", "Usage"]

LIMIT = 4 * 2**30
"""Bytes kept, unless told otherwise."""

ROOMY = 0.9
"""Share of the limit that an eviction leaves, so that not every new file needs one."""

LOOK_AGAIN = 1 / 16
"""Share of the limit that may be written before the folder is looked at again: others write there too."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What is kept of one model.

    Attributes:
        model: its fingerprint and dtype, as its folder is called.
        name: of the model, for people.
        shards: how many files.
        bytes: in all of them.
    """

    model: str
    name: str
    shards: int
    bytes: int


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


class HiddenStore:
    """Hidden states by key.

    Nothing that goes wrong here stops whoever computes states: what cannot be read is computed again, what cannot be
    written is not kept, and a warning says so.

    Args:
        folder: where they lie; made when it is needed.
        limit: bytes at most; what was not used for the longest time goes first. Processes that write at the same time
            may exceed it by a sixteenth each before they notice.
        warn: is told of damaged files and failed writes.

    Attributes:
        damaged: files that this store found damaged so far.

    Raises:
        InputError: if the folder is something else.
    """

    def __init__(self, folder: Path | str, limit: int = LIMIT, warn: Callable[[str], None] = _warn) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.damaged: list[Path] = []
        self._warn = warn
        self._said: set[str] = set()
        self._bytes: int | None = None
        self._written = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"a folder is required for hidden states, but '{folder}' is a file; give another --cache")

    def get(self, key: Key, states: slice = slice(None)) -> States | None:
        """The states of a key (S T D), mapped into memory and verified; None if there are none.

        A damaged file is set aside. What was returned stays readable, whatever becomes of its file.

        Args:
            key: what they are known by.
            states: which of them, in one piece; nothing else is read.
        """
        path = self.folder / key.path
        try:
            with path.open("rb") as file, self._setting_aside(path, file):
                entry = _read(file, key)
                found = map_states(file, entry, *_piece(states, entry.shape[0]))
        except (FileNotFoundError, DamagedError):
            return None
        except OSError as error:
            self._failed("read", error)
            return None
        mark_used(self.folder, path)
        return found

    def put(self, key: Key, states: States, *, name: str = "") -> None:
        """Keeps states (S T D); for a key that is there already they take the place of the old ones.

        Args:
            key: what they are known by.
            states: of float64, float32 or float16, or the bits of bfloat16 as uint16.
            name: of the model, for people.
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
            self._failed("keep", error)
            return
        self._bytes = (self._bytes or 0) + size
        self._written += size
        mark_used(self.folder, path)

    def entries(self) -> Iterator[Entry]:
        """What is kept, as the headers say, the longest unused first; those that are damaged are set aside."""
        for file in sorted(shards(self.folder)):
            if (entry := self._check(file.path, whole=False)) is not None:
                yield entry

    def usage(self) -> list[Usage]:
        """What is kept of each model."""
        by_model: dict[str, list[File]] = defaultdict(list)
        for file in shards(self.folder):
            by_model[file.model].append(file)
        return [
            Usage(model=model, name=_name(files), shards=len(files), bytes=sum(file.bytes for file in files))
            for model, files in sorted(by_model.items())
        ]

    def set_aside(self) -> list[Path]:
        """Damaged files that were set aside, by whomever, and not deleted yet."""
        return [file.path for file in damaged(self.folder)]

    def verify(self) -> int:
        """Reads everything and sets aside what is damaged (see `damaged`); how many files there were."""
        files = list(shards(self.folder))
        for file in files:
            self._check(file.path, whole=True)
        return len(files)

    def prune(self, limit: int = 0, *, model: str | None = None) -> tuple[int, int]:
        """Deletes what was not used for the longest time until no more than a limit is left; damaged files go first.

        Args:
            limit: bytes.
            model: only files of this model, by its name or the beginning of its fingerprint, count and are deleted.

        Returns:
            How many files were deleted, and their bytes.

        Raises:
            InputError: if nothing is kept of the model.
        """
        self._bytes = None
        tidy(self.folder)
        if model is None:
            return evict([*damaged(self.folder), *shards(self.folder)], limit)
        usage = self.usage()
        wanted = {each.model for each in usage if model and (model == each.name or each.model.startswith(model))}
        if not wanted:
            known = ", ".join(f"'{each.name}' ({each.model})" for each in usage) or "no model"
            raise InputError(
                f"--model needs one whose hidden states are kept, not '{model}'; kept are those of {known}"
            )
        return evict([file for file in shards(self.folder) if file.model in wanted], limit)

    def _check(self, path: Path, *, whole: bool) -> Entry | None:
        """The entry of a file; None if it is gone, or damaged and set aside."""
        with suppress(FileNotFoundError, DamagedError), path.open("rb") as file, self._setting_aside(path, file):
            entry = _read(file)
            if self.folder / entry.key.path != path:
                raise DamagedError("it belongs under another name")
            if whole:
                map_states(file, entry, 0, entry.shape[0])
            return entry
        return None

    @contextmanager
    def _setting_aside(self, path: Path, file: BinaryIO) -> Iterator[None]:
        """Moves the file away if it turns out damaged, unless somebody has put another in its place by then."""
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

    def _failed(self, what: str, error: OSError) -> None:
        """Says once what does not work and why."""
        message = f"cannot {what} hidden states in '{self.folder}' ({error.strerror}); the work goes on without them"
        if message not in self._said:
            self._said.add(message)
            self._warn(message)

    def _make_room(self, size: int) -> bool:
        """Deletes old files until one more fits; False if it never will."""
        if size > self.limit:
            return False
        if self._bytes is None or self._written > self.limit * LOOK_AGAIN or self._bytes + size > self.limit:
            files = [*damaged(self.folder), *shards(self.folder)]
            self._bytes, self._written = sum(file.bytes for file in files), 0
            if self._bytes + size > self.limit:
                tidy(self.folder)
                self._bytes -= evict(files, max(0, int(self.limit * ROOMY) - size))[1]
        return True


def _read(file: BinaryIO, key: Key | None = None) -> Entry:
    entry = read_entry(file)
    if key is not None and entry.key != key:
        raise DamagedError("it holds the states of another key")
    return entry


def _name(files: list[File]) -> str:
    """The name of the model, off the first file that can be read."""
    for file in files:
        with suppress(OSError, DamagedError), file.path.open("rb") as opened:
            return read_entry(opened).name
    return ""


def _piece(states: slice, count: int) -> tuple[int, int]:
    first, stop, step = states.indices(count)
    if step != 1 or first >= stop:
        raise InputError(f"at least one of {count} states in one piece is required, not {states}")
    return first, stop
