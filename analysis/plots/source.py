"""Input of the figures: a run, its summary and its measured tables."""

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment, InputError, as_experiment, load
from analysis.formatting import counted, percent, plain
from analysis.summary import Summary, summarise
from oracle.types import RunPath

__all__ = [
    "ORACLE",
    "Drawing",
    "Group",
    "MissingError",
    "Panel",
    "RunLike",
    "Runs",
    "Source",
    "as_source",
    "comparable",
    "grouped",
    "labelled",
]


ORACLE = (
    "The oracle sees the references and chooses one allocation per sequence, so that mean quality is greatest under a "
    "mean budget"
)
"""What the oracle is, for captions."""


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
        experiment = load(folder, criterion, costs=costs)
        return cls(experiment=experiment, folder=experiment.folder)

    def __fspath__(self) -> str:
        return os.fspath(self.folder or self.experiment)

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
            raise MissingError(f"no sequence of '{self.name}' can tell something: {summary.told_nothing}")
        if summary.headline is summary:
            return self
        chosen = summary.minimal.loc[summary.minimal["informative"], "sequence"]
        return replace(self, experiment=self.experiment.only(chosen), known=summary.headline)

    def beside(self, fraction: str) -> str:
        """A fraction over all sequences, to stand beside that of the informative ones; empty if they are the same.

        Args:
            fraction: name of an attribute of the summary.
        """
        summary = self.summary
        if summary.headline is summary:
            return ""
        untold = f"{summary.untold} of which tell{'s' if summary.untold == 1 else ''} nothing"
        return f"; over all {counted(summary.sequences)}, {untold}, {percent(getattr(summary, fraction))}"

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


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes of a figure.

    Attributes:
        draw: draws on axes, whose artists carry the labels of the legend.
        title: above the axes, where a figure has several.
        height: of the axes with their labels, in inches.
        share: of the width beside the panel before, in units of that one's; 0 for a row of its own.
    """

    draw: Callable[[Axes], None]
    title: str = ""
    height: float = 2.5
    share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure before it has a size: numbers, words, and panels that draw.

    Attributes:
        table: the numbers that the figure shows.
        panels: by name, in order.
        finding: the main result, in one sentence.
        detail: its evidence: numbers of sequences and tries, intervals.
        note: information needed to read the figure.
        origin: the model, the data and the criterion.
        columns: maximum number of columns of the legend.
    """

    table: pd.DataFrame
    panels: Mapping[str, Panel]
    finding: str
    detail: str
    note: str = ""
    origin: str = ""
    columns: int = 3

    @property
    def caption(self) -> str:
        """All words of the figure, as sentences of a caption."""
        parts = [part.rstrip(".") + "." for part in (self.finding, self.detail, self.note, self.origin) if part]
        return " ".join(part[:1].upper() + part[1:] for part in parts)


RunLike = RunPath
"""A run: its path, an `oracle.Run`, an `Experiment` or a `Source`."""

Runs = RunLike | Iterable[RunLike] | Mapping[str, RunLike | Iterable[RunLike]]
"""A run, several runs, or runs by label; several runs of one label are repetitions, such as seeds."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one series: one, or repetitions whose mean and deviation are drawn.

    Attributes:
        label: in the legend.
        sources: the runs.
    """

    label: str
    sources: Sequence[Source] = field(repr=False)


def as_source(run: RunLike) -> Source:
    """The run as input of figures; see `analysis.experiment.as_experiment`."""
    if isinstance(run, Source):
        return run
    experiment = as_experiment(run)
    return Source(experiment=experiment, folder=experiment.folder)


def labelled(sources: Sequence[Source], labels: Sequence[str] | None = None) -> list[Group]:
    """Groups the runs by label, in order.

    Args:
        sources: the runs.
        labels: one per run, equal ones for repetitions; None for the folders' names, each run a group.

    Raises:
        InputError: if the numbers of runs and labels differ.
    """
    if labels is None:
        names = [source.name for source in sources]
        seen: dict[str, int] = {}
        groups = []
        for name, source in zip(names, sources, strict=True):
            seen[name] = seen.get(name, 0) + 1
            groups.append(Group(label=name if seen[name] == 1 else f"{name} ({seen[name]})", sources=[source]))
        return groups
    if len(labels) != len(sources):
        counted_runs = f"{len(sources)} run{'' if len(sources) == 1 else 's'}"
        raise InputError(f"one label per run is required, got {len(labels)} for {counted_runs}: repeat --label")
    found: dict[str, list[Source]] = {}
    for label, source in zip(labels, sources, strict=True):
        found.setdefault(label, []).append(source)
    return [Group(label=label, sources=members) for label, members in found.items()]


def grouped(runs: Runs) -> list[Group]:
    """The runs as groups; see `Runs`.

    Raises:
        InputError: if there are none, or one is no run.
    """
    if not isinstance(runs, Mapping):
        sources = [as_source(run) for run in _several(runs)]
        labels = None
    else:
        pairs = [(str(label), as_source(run)) for label, of in runs.items() for run in _several(of)]
        sources, labels = [source for _, source in pairs], [label for label, _ in pairs]
    if not sources:
        raise InputError(
            "at least one run is required: give a path, a Run, an Experiment or a mapping of labels to them"
        )
    return labelled(sources, labels)


def _several(runs: RunLike | Iterable[RunLike]) -> list[RunLike]:
    """A run, or something that is none and not iterable either, as a list of one."""
    if isinstance(runs, str | os.PathLike | pd.DataFrame) or not isinstance(runs, Iterable):
        return [runs]
    return list(runs)


def comparable(groups: Sequence[Group], *, same: Sequence[str] = ()) -> list[Group]:
    """The runs restricted to the sequences that tell something in all of them.

    Args:
        groups: the runs.
        same: attributes of the experiments that must agree.

    Raises:
        MissingError: if an attribute differs, or the runs share no such sequence.
    """
    told = [[source.told for source in group.sources] for group in groups]
    experiments = [source.experiment for members in told for source in members]
    for what in same:
        found = list(dict.fromkeys(str(getattr(experiment, what)) for experiment in experiments))
        if len(found) > 1:
            raise MissingError(
                f"runs of one {what} are needed, these have {' and '.join(found)}: choose --criterion or --cost"
            )
    keys = [{*zip(one.sequences["sequence"], one.sequences["prompt"], strict=True)} for one in experiments]
    shared = {name for name, _ in keys[0].intersection(*keys[1:])}
    if not shared:
        raise MissingError("runs of the same sequences are needed, these share none: give runs of one data set")
    return [
        Group(label=group.label, sources=[_restricted(source, shared) for source in members])
        for group, members in zip(groups, told, strict=True)
    ]


def _restricted(source: Source, shared: set[str]) -> Source:
    """The source of these sequences alone."""
    if len(source.experiment.sequences) == len(shared):
        return source
    return replace(source, experiment=source.experiment.only(shared), known=None)
