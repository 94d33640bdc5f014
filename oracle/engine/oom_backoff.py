"""Out-of-memory back-off: halve the batch until it fits."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from oracle.errors import InputError

__all__ = ["Backoff", "no_backoff"]

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "defaultcpuallocator", "alloc_failed")
"""Parts of messages of torch errors that mean out of memory but have no type of their own."""

Result = TypeVar("Result")


class Backoff:
    """Runs one kind of work with as many rows per batch as memory has turned out to allow.

    Args:
        work: name of the work, for the log.
        notes: list to which events for the run's log are appended.

    Attributes:
        most: maximum rows per batch.
    """

    def __init__(self, work: str, notes: list[dict[str, Any]]) -> None:
        self.most = sys.maxsize
        self._work = work
        self._notes = notes

    def limited(self, rows: int) -> int:
        """Rows per batch, limited to what memory allows."""
        return min(rows, self.most)

    def run(self, rows: int, work: Callable[[int], Result]) -> Result:
        """Result of the work, restarted with half the rows whenever memory runs out.

        Args:
            rows: maximum rows per batch.
            work: called with the number of rows; must be restartable.

        Raises:
            InputError: if memory does not suffice for a single row.
        """
        while True:
            rows = self.limited(rows)
            try:
                if rows > 1:
                    return work(rows)
                with no_backoff():
                    return work(rows)
            except (MemoryError, RuntimeError) as error:
                if not _memory_is_out(error):
                    raise
            # Outside the handler, where the error no longer keeps its allocations alive.
            self.most = rows // 2
            self._notes.append({"event": "memory is out", "work": self._work, "rows": rows, "now": self.most})
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def run_pieces(
        self, rows_R: NDArray[np.int64], count: int, work: Callable[[NDArray[np.int64]], Result]
    ) -> Iterator[tuple[NDArray[np.int64], Result]]:
        """Runs work piece by piece; yields each piece with its result.

        Args:
            rows_R: the rows, in order.
            count: maximum rows per piece.
            work: called with a piece; must be restartable.
        """
        start = 0
        while start < len(rows_R):

            def on_some(most: int, start: int = start) -> tuple[NDArray[np.int64], Result]:
                piece = rows_R[start : start + most]
                return piece, work(piece)

            piece, found = self.run(min(count, len(rows_R) - start), on_some)
            yield piece, found
            start += len(piece)


@contextmanager
def no_backoff() -> Iterator[None]:
    """Context for work on a single row, which cannot be halved.

    Raises:
        InputError: if memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _memory_is_out(error):
            raise
        raise InputError(
            "not enough memory for a single row beside the loaded model; free some, or use fewer new tokens, "
            "shorter prompts or a smaller --dtype"
        ) from error


def _memory_is_out(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(sign in message for sign in SIGNS)
