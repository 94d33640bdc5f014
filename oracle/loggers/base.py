"""The contract of loggers, and several of them as one that cannot stop a search."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from oracle.errors import FOREIGN, reason_of

__all__ = ["Logger", "Loggers"]


class Logger(ABC):
    """Receives the numbers of a search while it runs.

    The search calls `begin` once its workers have started, `scalars` after results arrive, and `end` in any case. An
    exception in one of them ends the logging, not the search.
    """

    @abstractmethod
    def begin(self, run: Path, config: Mapping[str, Any]) -> None:
        """Called first.

        Args:
            run: the run folder.
            config: settings of the search, as JSON values.
        """

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Called with numbers by name.

        Args:
            step: number of evaluations so far, those of earlier processes included; it never falls.
            values: finite numbers.
        """

    @abstractmethod
    def end(self, summary: Mapping[str, float]) -> None:
        """Called last.

        Args:
            summary: the numbers of the run's summary; empty if the search did not complete.
        """


class Loggers:
    """Several loggers; one that fails is left out from then on.

    Args:
        loggers: to be called, in order.
        failed: called with the name of a logger's class and the reason of its failure.
    """

    def __init__(self, loggers: Seq[Logger], failed: Callable[[str, str], None]) -> None:
        self._loggers, self._failed = list(loggers), failed

    def begin(self, run: Path, config: Mapping[str, Any]) -> None:
        """Begins all."""
        self._each(lambda logger: logger.begin(run, config))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Passes numbers to all."""
        self._each(lambda logger: logger.scalars(step, values))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Ends all with the numbers of a summary."""
        numbers = {
            name: float(value)
            for name, value in summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value
        }
        self._each(lambda logger: logger.end(numbers))

    def _each(self, call: Callable[[Logger], None]) -> None:
        for logger in list(self._loggers):
            try:
                call(logger)
            except FOREIGN as error:  # what watches a search must not stop it
                self._loggers.remove(logger)
                self._failed(type(logger).__name__, reason_of(error))
