"""What figures are drawn from: a run, and what several of them need of it."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.experiment import Experiment, InputError, load
from analysis.formatting import plain
from analysis.summary import Summary, summarise

__all__ = ["Drawn", "MissingError", "Source"]

Drawn = tuple[pd.DataFrame, Figure]
"""The numbers that a figure shows, and the figure."""


class MissingError(InputError):
    """A figure cannot be drawn of this run; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run as figures see it; what takes time is computed when it is first asked for.

    Attributes:
        experiment: the run.
        folder: where it is stored, for what was measured on it afterwards; None if it is nowhere.
        known: its summary, if there is one already.
    """

    experiment: Experiment
    folder: Path | None = None
    known: Summary | None = None

    @classmethod
    def open(cls, folder: Path | str, *, criterion: str | None = None, costs: str | None = None) -> "Source":
        """Reads a stored run; see `analysis.load`."""
        return cls(experiment=load(folder, criterion, costs=costs), folder=Path(folder))

    @cached_property
    def summary(self) -> Summary:
        """Its numbers, with intervals and null."""
        return self.known or summarise(self.experiment)

    @property
    def strategy(self) -> str:
        """What searched."""
        return plain(self.experiment.provenance.get("config", {}).get("strategy", "search"))

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name if self.folder else "run"

    def measured(self, read: Callable[[Path], pd.DataFrame | None], command: str) -> pd.DataFrame:
        """A table that another command adds to a run.

        Args:
            read: gives it, or None where it is not there.
            command: which command that is.

        Raises:
            MissingError: it is not there, or holds no rows.
        """
        table = None if self.folder is None else read(self.folder)
        if table is None or not len(table):
            raise MissingError(f"run `{command} {shlex.quote(str(self.folder or 'RUN'))}` first")
        return table
