"""Worker processes forked from this one: they share the loaded weights, and those that die are replaced. Linux only.

All workers are forked from a *nursery*, itself forked once, before this process starts threads of its own (a progress
display, a file writer). So a worker that replaces a dead one inherits no lock that a thread held at that moment, and
no worker holds another's connection or a lock on a file: each end of a connection has one owner, whose death the other
end sees at once. If this process dies, so does the nursery, and the kernel then ends the workers.
"""

import ctypes
import gc
import os
import signal
import socket
import struct
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from oracle.errors import FOREIGN, InputError, WorkerError, reason_of

__all__ = ["DIED", "ProcessPool", "forked_map"]

Job = TypeVar("Job")
Given = TypeVar("Given")
Result = TypeVar("Result")

Serve = Callable[[Any], Iterator[Any]]
"""Computes the events of a request, in a worker."""

DIED = object()
"""Event of a job whose worker died."""

PID = struct.Struct("q")

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl: the signal that a process gets when its parent ends."""


@dataclass(frozen=True)
class _Worker:
    """A worker process with the connection to it."""

    process: int
    connection: Connection


class ProcessPool:
    """Up to `count` workers, started when there is work for them and kept until the pool is closed.

    Args:
        count: maximum number of workers at a time.
        serve: runs in the workers; what it refers to is shared with them by forking.

    Attributes:
        growth: process id of each worker so far -> peak of its own memory, in MiB; pages shared with this process do
            not count.
    """

    def __init__(self, count: int, serve: Serve) -> None:
        self.count = count
        self.growth: dict[int, float] = {}
        self._serve = serve
        self._nursery: _Nursery | None = _Nursery(serve)
        self._idle: list[_Worker] = []

    def run(self, waiting: deque[Job], request: Callable[[Job], Any]) -> Iterator[tuple[Job, int, Any]]:
        """Runs jobs; yields each event as (job, process id of its worker, event), interleaved.

        A job whose worker dies yields `DIED`; the caller may append it, or others, to `waiting`. If the iterator is
        closed early, busy workers are dropped.

        Args:
            waiting: the jobs, which are removed.
            request: what to send to the worker of a job, when one is free.

        Raises:
            InputError: as raised in a worker, or if workers cannot be started.
            WorkerError: for any other exception in a worker.
        """
        busy: dict[Connection, tuple[_Worker, Job]] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.count:
                    worker, job = self._idle.pop() if self._idle else self._start(), waiting.popleft()
                    busy[worker.connection] = worker, job
                    # A dead worker's end is closed, which `wait` reports below.
                    with suppress(OSError):
                        worker.connection.send(request(job))
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    worker, job = busy[connection]
                    kind, value = _receive(connection)
                    if kind == "event":
                        yield job, worker.process, value
                        continue
                    del busy[connection]
                    if kind == "end":
                        self.growth[worker.process] = value
                        self._idle.append(worker)
                        continue
                    connection.close()
                    if kind == "refused":
                        raise InputError(value)
                    if kind == "failed":
                        raise WorkerError(*value)
                    yield job, worker.process, DIED
        finally:
            for connection in busy:
                connection.close()

    def close(self) -> None:
        """Ends all workers, in the middle of their work if need be."""
        for worker in self._idle:
            worker.connection.close()
        self._idle = []
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def _start(self) -> _Worker:
        for _ in range(2):
            if self._nursery is None:
                self._nursery = _Nursery(self._serve)
            try:
                return self._nursery.start()
            except OSError:
                # It is gone, with its workers: memory was short. Another may fit.
                self._nursery.close()
                self._nursery = None
        raise InputError("worker processes cannot be started, memory may be short; search with --workers 1")


def forked_map(task: Callable[[Given], Result], given: Seq[Given], processes: int) -> Iterator[tuple[int, Result]]:
    """The result of a task per item, as (place of the item, result) in the order of completion.

    Args:
        task: any callable; it runs in processes forked for this call, so only results are copied between processes.
        given: the items, the longest first. An item on which a process dies is computed in this one.
        processes: number of processes; with 1, or a single item, everything is computed in this one.
    """
    if min(processes, len(given)) < 2:
        for place, one in enumerate(given):
            yield place, task(one)
        return
    pool = ProcessPool(min(processes, len(given)), lambda place: iter([task(given[place])]))
    try:
        for place, _, result in pool.run(deque(range(len(given))), lambda place: place):
            yield place, task(given[place]) if result is DIED else result
    finally:
        pool.close()


class _Nursery:
    """The process from which workers are forked.

    Raises:
        InputError: if it cannot be forked.
    """

    def __init__(self, serve: Serve) -> None:
        self._control, theirs = socket.socketpair()
        try:
            self.process = _fork()
        except OSError as error:
            raise InputError(f"cannot start worker processes ({error.strerror}); search with --workers 1") from error
        if not self.process:
            _leave(lambda: _tend(theirs, serve))
        theirs.close()

    def start(self) -> _Worker:
        """A new worker. Raises `OSError` if the nursery is gone."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            answer = self._control.recv(PID.size)
            if len(answer) < PID.size:
                raise BrokenPipeError("the nursery has ended")
            return _Worker(PID.unpack(answer)[0], Connection(ours.detach()))

    def close(self) -> None:
        """Ends the nursery, and with it all workers."""
        self._control.close()
        with suppress(ChildProcessError):
            os.waitpid(self.process, 0)


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return "died", None


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns where other threads exist. Here the child never touches what they may have locked: it computes
        # with one thread, writes no stream, and leaves by `os._exit`.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _leave(work: Callable[[], None]) -> NoReturn:
    """Runs work in a forked process and ends it, without the clean-up that belongs to the parent."""
    code = 1
    try:
        work()
        code = 0
    except _Closed:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _tend(control: socket.socket, serve: Serve) -> None:
    """The nursery: forks a worker per request, until the other end is closed."""
    gc.freeze()  # a collection would touch, and so copy, the pages of every object
    signal.set_wakeup_fd(-1)
    # Ctrl-C in a terminal reaches all processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    _close_all_but(control.fileno())
    nursery = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        process = _fork()
        if not process:
            control.close()
            _leave(partial(_work, Connection(descriptors[0]), serve, nursery))
        os.close(descriptors[0])
        control.sendall(PID.pack(process))


def _close_all_but(kept: int) -> None:
    """Closes inherited files, such as the lock of a run: it must end with its owner, not with the last worker."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor != kept:
            with suppress(OSError):
                os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _work(connection: Connection, serve: Serve, nursery: int) -> None:
    """A worker: answers requests until the other end is closed."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != nursery:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    began = _status()["RssAnon"]
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        try:
            for event in serve(request):
                _send(connection, "event", event)
        except InputError as error:
            _send(connection, "refused", str(error))
        except FOREIGN as error:  # the parent raises it
            _send(connection, "failed", (reason_of(error), traceback.format_exc()))
        else:
            now = _status()
            _send(connection, "end", max(0.0, now["VmHWM"] - now["RssFile"] - began))


def _send(connection: Connection, kind: str, value: Any) -> None:
    """Sends a message; ends the process if the other end is closed."""
    try:
        connection.send((kind, value))
    except OSError:
        raise _Closed from None


class _Closed(BaseException):
    """The parent has closed the connection."""


def _status() -> dict[str, float]:
    """Memory of this process according to the kernel, in MiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1:] == ["kB"]}
