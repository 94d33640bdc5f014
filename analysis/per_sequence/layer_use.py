"""Layers used by the minimal allocations: how often, in which combinations, and where they begin and end."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.grouping import FloatArray, IntArray, flatten

__all__ = ["ALL", "CoOccurrence", "co_occurrence", "first_and_last", "layer_use"]

ALL = "all"
"""Label of the row over all tasks."""

ITERATIONS = 500
"""Enough for expected shares within a thousandth, even if an allocation uses nearly all layers or none."""


@dataclass(frozen=True, kw_only=True)
class CoOccurrence:
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


def layer_use(minimal: pd.DataFrame, sequences: pd.DataFrame, layers: int) -> pd.DataFrame:
    """Share of the minimal allocations that use each layer, per task and over all.

    Sequences where the full model scores no more than the floor are left out: there every allocation qualifies.

    Args:
        minimal: table of `analysis.per_sequence.savings.minimal_budgets`.
        sequences: `sequence` and `task`.
        layers: L.

    Returns:
        Rows: the tasks in order of the table, then `all`; columns: `n`, the number of sequences counted, and the layers
        0..L-1, shares in 0..1 (NaN where n is 0).
    """
    left = _counted(minimal, sequences)
    used_NL = _used(left["allocation"], layers)
    rows = [(task, used_NL[places]) for task, places in _by_task(left, sequences)]
    shares = [part.mean(axis=0) if len(part) else np.full(layers, np.nan) for _, part in rows]
    table = pd.DataFrame(shares, index=[task for task, _ in rows], columns=range(layers))
    table.insert(0, "n", [len(part) for _, part in rows])
    return table


def co_occurrence(minimal: pd.DataFrame, layers: int) -> CoOccurrence:
    """Layers that occur together in the minimal allocations, compared with chance.

    Zero-quality sequences are left out. With few sequences a lift far from 1 is not significant: a pair of layers that
    half of N allocations use each is expected N / 4 times, with a standard deviation of about its square root.

    Args:
        minimal: table of `analysis.per_sequence.savings.minimal_budgets`.
        layers: L.
    """
    used_NL = _used(minimal.loc[~minimal["zero_quality"], "allocation"], layers)
    count = len(used_NL)
    use_L = used_NL.mean(axis=0) if count else np.full(layers, np.nan)
    together_LL = used_NL.T @ used_NL / count if count else np.full((layers, layers), np.nan)
    expected_NL = _by_margins(used_NL)
    return CoOccurrence(
        together=pd.DataFrame(together_LL),
        lift=_over(together_LL, np.outer(use_L, use_L)),
        lift_at_size=_over(together_LL, expected_NL.T @ expected_NL / max(count, 1)),
        sequences=count,
    )


def _by_margins(used_NL: FloatArray) -> FloatArray:
    """Probability that each allocation uses each layer, given its number of layers and each layer's frequency.

    The distribution of greatest entropy with these row and column sums on average (the bipartite configuration model,
    Saracco et al. 2015, Scientific Reports 5, 10595), by its fixed-point iteration.
    """
    row_N, column_L = used_NL.sum(axis=1), used_NL.sum(axis=0)
    x_N, y_L = row_N / max(np.sqrt(row_N.sum()), 1.0), column_L / max(np.sqrt(column_L.sum()), 1.0)
    for _ in range(ITERATIONS):
        for mine, others, total in ((x_N, y_L, row_N), (y_L, x_N, column_L)):
            per_unit = (others / (1 + np.outer(mine, others))).sum(axis=1)
            np.divide(total, per_unit, out=mine, where=per_unit > 0)
    odds_NL = np.outer(x_N, y_L)
    return odds_NL / (1 + odds_NL)


def _over(found_LL: FloatArray, expected_LL: FloatArray) -> pd.DataFrame:
    none = np.full_like(found_LL, np.nan)
    return pd.DataFrame(np.divide(found_LL, expected_LL, out=none, where=expected_LL > 1e-9))


def first_and_last(minimal: pd.DataFrame, sequences: pd.DataFrame, layers: int) -> pd.DataFrame:
    """First and last layer of the minimal allocations, per task and over all.

    Zero-quality sequences are left out.

    Args:
        minimal: table of `analysis.per_sequence.savings.minimal_budgets`.
        sequences: `sequence` and `task`.
        layers: L.

    Returns:
        One row per task (in order of the table, then `all`) and layer: `task`, `layer`, `first` and `last`, shares of
        the allocations whose lowest and highest layer it is; `sequences`, number counted, and `empty`, number of these
        without any layer, so that the shares need not add up to 1. NaN where nothing is counted.
    """
    left = _counted(minimal, sequences)
    used_NL = _used(left["allocation"], layers).astype(bool)
    tables = []
    for task, places in _by_task(left, sequences):
        part = used_NL[places]
        filled = part[part.any(axis=1)]
        ends = (filled.argmax(axis=1), layers - 1 - filled[:, ::-1].argmax(axis=1))
        none = np.full(layers, np.nan)
        first, last = (np.bincount(end, minlength=layers) / len(part) if len(part) else none for end in ends)
        table = pd.DataFrame({"task": task, "layer": range(layers), "first": first, "last": last})
        tables.append(table.assign(sequences=len(part), empty=len(part) - len(filled)))
    return pd.concat(tables, ignore_index=True)


def _counted(minimal: pd.DataFrame, sequences: pd.DataFrame) -> pd.DataFrame:
    """The minimal allocations of sequences above zero quality, with their tasks."""
    return minimal[~minimal["zero_quality"]].merge(sequences[["sequence", "task"]], on="sequence", how="left")


def _used(allocations: pd.Series, layers: int) -> FloatArray:
    """1.0 for each layer that an allocation uses (N U)."""
    flat, length = flatten(allocations)
    used_NL = np.zeros((len(allocations), layers))
    used_NL[np.repeat(np.arange(len(allocations)), length), flat] = 1.0
    return used_NL


def _by_task(left: pd.DataFrame, sequences: pd.DataFrame) -> list[tuple[str, IntArray]]:
    """Rows per task, then all rows; only these if the only task has no name."""
    tasks = sequences["task"].unique().tolist()
    parts = [] if tasks == [""] else [(task, np.flatnonzero(left["task"] == task)) for task in tasks]
    return [*parts, (ALL, np.arange(len(left)))]
