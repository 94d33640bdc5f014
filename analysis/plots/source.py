"""Input of the figures: a run, its summary and its measured tables."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.experiment import Experiment, InputError, load
from analysis.formatting import percent, plain
from analysis.summary import Summary, summarise
from oracle.types import RunPath

__all__ = ["Drawn", "MissingError", "Source"]

Drawn = tuple[pd.DataFrame, Figure]
"""A figure's numbers, and the figure."""


class MissingError(InputError):
    """A figure cannot be drawn of this run; the message contains the remedy."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run as input of figures; expensive results are computed on first use.

    Attributes:
        experiment: the run.
        folder: its folder, for later measurements; None if it is not stored.
        known: its summary, if already computed.
    """

    experiment: Experiment
    folder: Path | None = None
    known: Summary | None = None

    @classmethod
    def open(cls, folder: RunPath, *, criterion: str | None = None, costs: str | None = None) -> "Source":
        """Reads a stored run; see `analysis.load`."""
        return cls(experiment=load(folder, criterion, costs=costs), folder=Path(folder))

    @cached_property
    def summary(self) -> Summary:
        """Its numbers, with intervals and null."""
        return self.known or summarise(self.experiment)

    @property
    def told(self) -> "Source":
        """The same of the sequences that can tell something, whose numbers headlines state.

        Raises:
            MissingError: if none can; says why.
        """
        summary = self.summary
        if summary.headline is None:
            raise MissingError(f"no sequence can tell something: {summary.told_nothing}")
        if summary.headline is summary:
            return self
        chosen = summary.minimal.loc[summary.minimal["informative"], "sequence"]
        return replace(self, experiment=self.experiment.only(chosen), known=summary.headline)

    @property
    def beside(self) -> str:
        """The numbers over all sequences, to stand beside those of the informative ones; empty if they are the same."""
        summary = self.summary
        if summary.headline is summary:
            return ""
        return (
            f"; over all {summary.sequences} sequences {percent(summary.per_sequence_fraction)} per sequence, "
            f"{percent(summary.equal_quality_fraction)} at equal mean quality"
        )

    @property
    def strategy(self) -> str:
        """Name of the search strategy."""
        return plain(self.experiment.provenance.get("config", {}).get("strategy", "search"))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name if self.folder else "run"

    def measured(self, read: Callable[[Path], pd.DataFrame | None], command: str) -> pd.DataFrame:
        """A table that another command adds to a run.

        Raises:
            MissingError: if it is missing, or has no rows; names the command.
        """
        table = None if self.folder is None else read(self.folder)
        if table is None or not len(table):
            raise MissingError(f"run `{command} {shlex.quote(str(self.folder or 'RUN'))}` first")
        return table
