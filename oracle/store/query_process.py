"""A query in a process of its own, whose memory and time are bounded by the operating system.

The database's own limits do not cover single functions (`repeat('x', 2000000000)` takes a minute and is not
interruptible), so the process has a limit on its memory and is killed when its time is over or its reader goes away.
Rows are streamed: neither process holds the whole result.

The child (`python -m oracle.store.query_process`) reads one JSON object from standard input and writes frames to
standard output: a length of 8 bytes and an Arrow stream, the first of them empty; or a length of 0 and an error.
"""

import json
import os
import resource
import select as polling
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from oracle.errors import InputError
from oracle.store.atomic import scratch_folder

__all__ = ["SECONDS", "Rows", "stream"]

SECONDS = 60.0
"""Default time limit of a query."""

BEYOND_MIB = 3072
"""Address space of the process beyond the database's memory: libraries, threads, and what the database does not count.
"""

MAX_FRAME = 2**28
"""Maximum size of one frame, in bytes: about a thousand rows."""

ROWS_PER_FRAME = 1024

HEADER = 8

LONGEST_WAIT = 1e6
"""Seconds that the operating system can be asked to wait."""


class Rows:
    """The result of a query, read as it is computed.

    Attributes:
        schema: its columns.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", shown: dict[str, str], seconds: float) -> None:
        self._process, self._shown, self._left = process, shown, seconds
        self._seconds = seconds
        first = self._frame()
        assert first is not None
        self.schema: pa.Schema = first.schema

    def __iter__(self) -> Iterator[pa.Table]:
        while (frame := self._frame()) is not None:
            yield frame

    def _frame(self) -> pa.Table | None:
        """The next rows; None at the end. Only time spent waiting for the database counts."""
        began = time.monotonic()
        try:
            head = self._read(HEADER, began)
            if not head:
                return None
            length = int.from_bytes(head, "little")
            if not length:
                raise self._refused(self._rest())
            return pa.ipc.open_stream(self._read(length, began)).read_all()
        finally:
            self._left -= time.monotonic() - began

    def _read(self, count: int, began: float) -> bytes:
        pipe = self._pipe.fileno()
        parts, got = [], 0
        while got < count:
            left = self._left - (time.monotonic() - began)
            if left <= 0 or not polling.select([pipe], [], [], min(left, LONGEST_WAIT))[0]:
                raise InputError(
                    f"the SQL takes longer than {self._seconds:g} s; narrow it, or give more time with --seconds"
                )
            part = os.read(pipe, min(count - got, 2**20))
            if not part:
                if got or self._process.wait():
                    raise InputError(
                        "the SQL needs more memory than it may have; narrow it, or give more with --memory"
                    )
                return b""
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def _rest(self) -> str:
        return self._pipe.read().decode("utf-8", errors="replace")

    def _refused(self, message: str) -> InputError:
        for path, name in self._shown.items():
            message = message.replace(path, name)
        return InputError(message)

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


@contextmanager
def stream(folder: Path, sql: str, *, seconds: float = SECONDS, memory_mib: int) -> Iterator[Rows]:
    """Runs one SELECT over a run in a bounded process; see `Run.query` for what it may read.

    Args:
        folder: the run folder.
        sql: the SELECT.
        seconds: time limit, without the time that the caller takes to use rows.
        memory_mib: memory limit of the database, in MiB.

    Yields:
        The rows.

    Raises:
        InputError: if it is not a single SELECT, it fails or exceeds a limit, or the run is damaged.
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds needs a finite number above 0, not {seconds}")
    if not 64 <= memory_mib <= 2**20:
        raise InputError(f"--memory needs 64 to {2**20} MiB, not {memory_mib}")
    task = {"folder": str(folder.absolute()), "sql": sql, "memory_mib": memory_mib}
    with scratch_folder(Path(tempfile.gettempdir()), "layer-oracle-query") as scratch:
        # A query may read the environment's names through settings: the child has next to none.
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": "."}
        process = subprocess.Popen(
            [sys.executable, "-m", "oracle.store.query_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env=environment,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            shown = {str(scratch): "the temporary folder", str(folder.absolute()): str(folder)}
            yield Rows(process, shown, seconds)
        finally:
            # Whatever happened, it ends now: nothing in it is to be kept.
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(OSError):
                process.stdin.close()


KEPT = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "SYSTEMROOT", "DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH")


def _leave_with_reader() -> None:
    """Ends this process once its reader is gone: its standard input is then closed."""
    sys.stdin.buffer.read()
    os._exit(1)


def _limit_memory(mib: int) -> None:
    # macOS accepts the limit without keeping it; there the database's own limit remains.
    with suppress(OSError, ValueError):
        size = (mib + BEYOND_MIB) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _send(data: bytes) -> None:
    sys.stdout.buffer.write(len(data).to_bytes(HEADER, "little") + data)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _answer(task: dict[str, Any]) -> None:
    from oracle.store.run import Run
    from oracle.store.sql import batches

    run = Run.open(task["folder"]).queried()
    found = batches(run, task["sql"], memory_mib=task["memory_mib"], rows=ROWS_PER_FRAME)
    for place, table in enumerate(found):
        if (size := table.nbytes) > MAX_FRAME:
            raise InputError(f"the SQL returns rows of {size // max(len(table), 1)} bytes, which is too long to show")
        if len(table) or place == 0:
            _send(_packed(table))
    sys.stdout.buffer.flush()


def main() -> None:
    """The child: answers one query."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its reader decides
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_reader, daemon=True).start()
    _limit_memory(task["memory_mib"])
    try:
        _answer(task)
    except (InputError, MemoryError) as error:
        message = str(error) or "the SQL needs more memory than it may have; narrow it, or give more with --memory"
        sys.stdout.buffer.write((0).to_bytes(HEADER, "little") + message.encode("utf-8", errors="replace"))
        sys.stdout.buffer.flush()
    # The thread that waits for the reader would hold up a regular exit.
    os._exit(0)


if __name__ == "__main__":
    main()
