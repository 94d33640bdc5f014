"""Less at once where memory runs out: half the rows, half of those again, down to a single one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from oracle.errors import InputError

__all__ = ["Room", "single"]

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "defaultcpuallocator", "alloc_failed")
"""What torch says where it has no error of its own for it."""

Result = TypeVar("Result")


class Room:
    """How many rows of one kind of work fit the machine's memory, as far as that has turned out.

    Args:
        work: what it is, for people.
        notes: takes what the run's log should say.

    Attributes:
        most: rows at once.
    """

    def __init__(self, work: str, notes: list[dict[str, Any]]) -> None:
        self.most = sys.maxsize
        self._work = work
        self._notes = notes

    def fit(self, rows: int) -> int:
        """So many rows, or as many of them as there is memory for."""
        return min(rows, self.most)

    def within(self, rows: int, work: Callable[[int], Result]) -> Result:
        """What some work gives, with fewer rows at once wherever memory runs out.

        Args:
            rows: at once at most.
            work: is told how many rows; may be begun again at any time.

        Raises:
            InputError: if there is no memory for a single row.
        """
        while True:
            rows = self.fit(rows)
            try:
                if rows > 1:
                    return work(rows)
                with single():
                    return work(rows)
            except (MemoryError, RuntimeError) as error:
                if not _memory_is_out(error):
                    raise
            # Here nothing refers to the error any more, which keeps what had been allocated.
            self.most = rows // 2
            self._notes.append({"event": "memory is out", "work": self._work, "rows": rows, "now": self.most})
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def pieces(
        self, rows_N: NDArray[np.int64], count: int, work: Callable[[NDArray[np.int64]], Result]
    ) -> Iterator[tuple[NDArray[np.int64], Result]]:
        """Does work on rows piece by piece; yields each piece with what it gives.

        Args:
            rows_N: the rows, in order.
            count: rows in a piece at most.
            work: on a piece; see `within`.
        """
        start = 0
        while start < len(rows_N):

            def on_some(most: int, start: int = start) -> tuple[NDArray[np.int64], Result]:
                piece = rows_N[start : start + most]
                return piece, work(piece)

            piece, found = self.within(min(count, len(rows_N) - start), on_some)
            yield piece, found
            start += len(piece)


@contextmanager
def single() -> Iterator[None]:
    """Work that cannot be cut any further.

    Raises:
        InputError: if memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _memory_is_out(error):
            raise
        raise InputError(
            "there is no memory left for a single row beside the loaded model; free some, or give fewer new tokens, "
            "shorter prompts or a smaller --dtype"
        ) from error


def _memory_is_out(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(sign in message for sign in SIGNS)
