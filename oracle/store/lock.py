"""The lock that limits a run to one writer."""

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
    """A file lock that records its holder. The operating system releases it when the holding process ends.

    Args:
        path: the lock file, which is not deleted.

    Raises:
        InputError: if another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        try:
            # A link in a run may lead anywhere: it is not followed.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write to '{path.parent}' ({error.strerror}); make it writable") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._file.read() if self._file.seek(0) == 0 else "")
            self._file.close()
            raise InputError(
                f"the run '{path.parent}' is being written by {holder}; wait until it ends, or stop it"
            ) from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = json.dumps({"process": os.getpid(), "host": platform.node(), "since": since})
        # The lock must work on a full disk too; the name of its holder is optional.
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), holder.encode())

    def release(self) -> None:
        """Releases the lock."""
        self._file.close()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {int(holder['process'])} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError, ValueError):
        return "another process"
