"""One writer at a time."""

import fcntl
import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from oracle.errors import InputError

__all__ = ["Lock"]


class Lock:
    """A lock that names its holder. The system releases it when the holder ends, however it ends.

    Args:
        path: file of the lock, which stays behind.

    Raises:
        InputError: if somebody else holds it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write to '{path.parent}' ({error.strerror}); make it writable") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._file.read() if self._file.seek(0) == 0 else "")
            self._file.close()
            raise InputError(
                f"the run '{path.parent}' is being written by {holder}; wait for it or end it first"
            ) from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = json.dumps({"process": os.getpid(), "host": platform.node(), "since": since})
        # Even where the disk is full: who holds it is worth less than the lock.
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), holder.encode())

    def release(self) -> None:
        """Lets others in."""
        self._file.close()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {int(holder['process'])} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError, ValueError):
        return "another process"
