"""Layers used by the minimal allocations: how often, in which combinations, and where they begin and end."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.display import Shown
from analysis.experiment import as_experiment
from analysis.grouping import FloatArray, IntArray, flatten
from analysis.per_sequence.savings import informative, minimal_budgets
from oracle.types import RunPath

__all__ = [
    "ALL",
    "CoOccurrence",
    "co_occurrence",
    "co_occurrence_of",
    "first_and_last",
    "first_and_last_of",
    "layer_use",
    "layer_use_of",
]

ALL = "all"
"""Label of the row over all tasks."""

ITERATIONS = 500
"""Enough for expected shares within a thousandth, even if an allocation uses nearly all layers or none."""


@dataclass(frozen=True, kw_only=True, repr=False)
class CoOccurrence(Shown):
    """Layers used together.

    Attributes:
        together: share of the allocations that use both layers (U U); the diagonal is each layer's use.
        lift: `together` over its expectation if layers were used independently, at their own frequencies; NaN where a
            layer is never used. The diagonal is meaningless.
        lift_at_size: the same, but independent given each allocation's number of layers: large allocations use many
            layers of any kind, which alone lifts every pair above 1. NaN where the expectation is 0.
        sequences: number of allocations counted.
    """

    together: pd.DataFrame
    lift: pd.DataFrame
    lift_at_size: pd.DataFrame
    sequences: int


def layer_use(run: RunPath) -> pd.DataFrame:
    """Share of the minimal allocations that use each layer, per task and over all.

    Sequences that tell nothing are left out: there every allocation qualifies.

    Returns:
        Rows: the tasks in order of the run, then `all`; columns: `n`, the number of sequences counted, and the layers
        0..L-1, shares in 0..1 (NaN where n is 0).
    """
    experiment = as_experiment(run)
    return layer_use_of(minimal_budgets(experiment), experiment.sequences, experiment.layers)


def layer_use_of(minimal: pd.DataFrame, sequences: pd.DataFrame, layers: int) -> pd.DataFrame:
    """The table of `layer_use`.

    Args:
        minimal: table of `minimal_budgets`.
        sequences: `sequence` and `task`.
        layers: L.
    """
    left = _counted(minimal, sequences)
    used_NU = _used(left["allocation"], layers)
    rows = [(task, used_NU[places]) for task, places in _by_task(left, sequences)]
    shares = [part.mean(axis=0) if len(part) else np.full(layers, np.nan) for _, part in rows]
    table = pd.DataFrame(shares, index=[task for task, _ in rows], columns=range(layers))
    table.insert(0, "n", [len(part) for _, part in rows])
    return table


def co_occurrence(run: RunPath) -> CoOccurrence:
    """Layers that occur together in the minimal allocations, compared with chance.

    Sequences that tell nothing are left out. With few sequences a lift far from 1 is not significant: a pair of layers
    that half of N allocations use each is expected N / 4 times, with a standard deviation of about its square root.
    """
    experiment = as_experiment(run)
    return co_occurrence_of(minimal_budgets(experiment), experiment.layers)


def co_occurrence_of(minimal: pd.DataFrame, layers: int) -> CoOccurrence:
    """The result of `co_occurrence`; arguments as for `layer_use_of`."""
    used_NU = _used(minimal.loc[informative(minimal), "allocation"], layers)
    count = len(used_NU)
    use_U = used_NU.mean(axis=0) if count else np.full(layers, np.nan)
    together_UU = used_NU.T @ used_NU / count if count else np.full((layers, layers), np.nan)
    expected_NU = _by_margins(used_NU)
    return CoOccurrence(
        together=pd.DataFrame(together_UU),
        lift=_over(together_UU, np.outer(use_U, use_U)),
        lift_at_size=_over(together_UU, expected_NU.T @ expected_NU / max(count, 1)),
        sequences=count,
    )


def _by_margins(used_NU: FloatArray) -> FloatArray:
    """Probability that each allocation uses each layer, given its number of layers and each layer's frequency.

    The distribution of greatest entropy with these row and column sums on average (the bipartite configuration model,
    Saracco et al. 2015, Scientific Reports 5, 10595), by its fixed-point iteration.
    """
    row_N, column_U = used_NU.sum(axis=1), used_NU.sum(axis=0)
    x_N, y_U = row_N / max(np.sqrt(row_N.sum()), 1.0), column_U / max(np.sqrt(column_U.sum()), 1.0)
    for _ in range(ITERATIONS):
        for mine, others, total in ((x_N, y_U, row_N), (y_U, x_N, column_U)):
            per_unit = (others / (1 + np.outer(mine, others))).sum(axis=1)
            np.divide(total, per_unit, out=mine, where=per_unit > 0)
    odds_NU = np.outer(x_N, y_U)
    return odds_NU / (1 + odds_NU)


def _over(found_UU: FloatArray, expected_UU: FloatArray) -> pd.DataFrame:
    none = np.full_like(found_UU, np.nan)
    return pd.DataFrame(np.divide(found_UU, expected_UU, out=none, where=expected_UU > 1e-9))


def first_and_last(run: RunPath) -> pd.DataFrame:
    """First and last layer of the minimal allocations, per task and over all.

    Sequences that tell nothing are left out.

    Returns:
        One row per task (in order of the run, then `all`) and layer: `task`, `layer`, `first` and `last`, shares of
        the allocations whose lowest and highest layer it is; `sequences`, number counted, and `empty`, number of these
        without any layer, so that the shares need not add up to 1. NaN where nothing is counted.
    """
    experiment = as_experiment(run)
    return first_and_last_of(minimal_budgets(experiment), experiment.sequences, experiment.layers)


def first_and_last_of(minimal: pd.DataFrame, sequences: pd.DataFrame, layers: int) -> pd.DataFrame:
    """The table of `first_and_last`; arguments as for `layer_use_of`."""
    left = _counted(minimal, sequences)
    used_NU = _used(left["allocation"], layers).astype(bool)
    tables = []
    for task, places in _by_task(left, sequences):
        part = used_NU[places]
        filled = part[part.any(axis=1)]
        ends = (filled.argmax(axis=1), layers - 1 - filled[:, ::-1].argmax(axis=1))
        none = np.full(layers, np.nan)
        first, last = (np.bincount(end, minlength=layers) / len(part) if len(part) else none for end in ends)
        table = pd.DataFrame({"task": task, "layer": range(layers), "first": first, "last": last})
        tables.append(table.assign(sequences=len(part), empty=len(part) - len(filled)))
    return pd.concat(tables, ignore_index=True)


def _counted(minimal: pd.DataFrame, sequences: pd.DataFrame) -> pd.DataFrame:
    """The minimal allocations of sequences that can tell something, with their tasks."""
    return minimal[informative(minimal)].merge(sequences[["sequence", "task"]], on="sequence", how="left")


def _used(allocations: pd.Series, layers: int) -> FloatArray:
    """1.0 for each layer that an allocation uses (N U)."""
    flat, length = flatten(allocations)
    used_NU = np.zeros((len(allocations), layers))
    used_NU[np.repeat(np.arange(len(allocations)), length), flat] = 1.0
    return used_NU


def _by_task(left: pd.DataFrame, sequences: pd.DataFrame) -> list[tuple[str, IntArray]]:
    """Rows per task, then all rows; only these if the only task has no name."""
    tasks = sequences["task"].unique().tolist()
    parts = [] if tasks == [""] else [(task, np.flatnonzero(left["task"] == task)) for task in tasks]
    return [*parts, (ALL, np.arange(len(left)))]
