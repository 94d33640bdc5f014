"""Which layers the minimal allocations use."""

import numpy as np
import pandas as pd

from analysis.grouping import flatten

__all__ = ["ALL", "layer_use"]

ALL = "all"
"""Label of the row over all tasks."""


def layer_use(minimal: pd.DataFrame, sequences: pd.DataFrame, layers: int) -> pd.DataFrame:
    """Share of the minimal allocations that use each layer, per task and over all.

    Sequences where the full model scores no more than the floor are left out: there every
    allocation qualifies.

    Args:
        minimal: table of `analysis.savings.minimal_budgets`.
        sequences: `sequence` and `task`.
        layers: L.

    Returns:
        Rows: the tasks in order of the table, then `all`; columns: `n`, the number of sequences counted, and
        the layers 0..L-1, shares in 0..1 (NaN where n is 0).
    """
    left = minimal[~minimal["zero_quality"]].merge(sequences[["sequence", "task"]], on="sequence", how="left")
    flat, length = flatten(left["allocation"])
    used = np.zeros((len(left), layers))
    used[np.repeat(np.arange(len(left)), length), flat] = 1.0
    rows = [(task, used[(left["task"] == task).to_numpy()]) for task in sequences["task"].unique()]
    if len(rows) == 1 and rows[0][0] == "":
        rows = []
    rows.append((ALL, used))
    shares = [part.mean(axis=0) if len(part) else np.full(layers, np.nan) for _, part in rows]
    table = pd.DataFrame(shares, index=[task for task, _ in rows], columns=range(layers))
    table.insert(0, "n", [len(part) for _, part in rows])
    return table
