"""A run as a whole and per task, each part summarised separately."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.experiment import Experiment
from analysis.luck.effort_curve import luck_curve
from analysis.summary import Summary, summarise

__all__ = ["MOST_TASKS", "Part", "parts_of", "task_names"]

MOST_TASKS = 40
"""Maximum number of tasks with a part of their own; beyond it the smallest ones share one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """All sequences of a run, or those of one task.

    Attributes:
        name: of the task; empty for all sequences.
        experiment: their evaluations.
        summary: their numbers; those against shuffled references only for all sequences.
        curve: table of `analysis.luck_curve` over `plotted`, with intervals and shuffled references only for all
            sequences.
    """

    name: str
    experiment: Experiment
    summary: Summary
    curve: pd.DataFrame

    @property
    def told(self) -> Summary | None:
        """The numbers of the sequences that can tell something, which headlines state; None if none can."""
        return self.summary.headline

    @property
    def stated(self) -> Summary:
        """The numbers that plots show: those of headlines, or of all sequences if none can tell something."""
        return self.summary.headline or self.summary

    @cached_property
    def plotted(self) -> Experiment:
        """The evaluations behind `stated`."""
        return _plotted(self.experiment, self.summary)


def _plotted(experiment: Experiment, summary: Summary) -> Experiment:
    if summary.informative is None:
        return experiment
    return experiment.only(summary.informative.minimal["sequence"])


def task_names(sequences: pd.DataFrame) -> pd.Series:
    """The task under which each sequence is counted; empty everywhere with fewer than two tasks."""
    counts = sequences["task"].value_counts()
    if len(counts) < 2:
        return pd.Series("", index=sequences.index)
    named = sequences["task"].where(sequences["task"] != "", "(no task)")
    if len(counts) <= MOST_TASKS:
        return named
    rest = counts.index[MOST_TASKS - 1 :]
    return named.where(~sequences["task"].isin(rest), f"({len(rest)} smaller tasks)")


def parts_of(
    experiment: Experiment,
    *,
    bootstrap: int = 1000,
    permutations: int = 10,
    advance: Callable[[int, str], None] = lambda steps, name: None,
) -> list[Part]:
    """Summarises all sequences, then each task separately if there are several.

    Args:
        experiment: the run.
        bootstrap: resamples behind the intervals.
        permutations: derangements behind the null oracle.
        advance: called with 1 and the name of each finished part.
    """
    names = task_names(experiment.sequences)
    found = []
    for name in ["", *filter(None, names.unique())]:
        own = experiment.only(experiment.sequences["sequence"][names == name]) if name else experiment
        nulls = 0 if name else permutations
        summary = summarise(own, bootstrap=bootstrap, permutations=nulls)
        curve = luck_curve(_plotted(own, summary), bootstrap=0 if name else bootstrap, permutations=nulls)
        found.append(Part(name=name, experiment=own, summary=summary, curve=curve))
        advance(1, name or "all sequences")
    return found
