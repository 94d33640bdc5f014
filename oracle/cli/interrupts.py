"""Ctrl-C: a search stores what it has and stops; every other command ends within a second."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["stoppable", "within_a_second"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE = 0.7
"""Seconds that Python gets to end by itself; a long call into a library does not notice an interrupt."""

GRACE = 0.5
"""Seconds that a search gets to end its batch."""


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGINT or SIGTERM has arrived.

    A batch that does not end within half a second is given up by a `KeyboardInterrupt`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def give_up(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\noracle: stopping; what is finished is stored", file=sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, give_up)
    try:
        yield stop.is_set
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def within_a_second() -> Iterator[None]:
    """Ends the process with exit code 130 if an interrupt does not end the block by itself within a second.

    Nothing is lost by that: files are written whole or not at all, and scratch files go with the next command.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != (
        signal.default_int_handler
    ):
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()

    def watch() -> None:
        with suppress(OSError):
            while (byte := os.read(reading, 1)) and byte[0] != signal.SIGINT:
                pass
            if byte and not ended.wait(PATIENCE):
                os.write(2, b"oracle: interrupted\n")
                os._exit(130)

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)
