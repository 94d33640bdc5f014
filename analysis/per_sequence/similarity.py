"""Drift of hidden states from the full model's as layers are left out: skipping against early exit.

Source of the comparison: Glavas et al. 2024 (arXiv 2410.20022), a plot of the cosine to the full model's last state.
All functions take a run that `oracle measure` has measured, or the table of `analysis.measurements.similarity`.
"""

import pandas as pd

from analysis.measurements import similarity
from analysis.per_sequence.measured import measured
from analysis.stats import mean_interval
from oracle.types import RunPath

__all__ = ["VALUES", "similarity_by_budget", "similarity_by_sequence", "similarity_by_token"]

VALUES = ("cosine", "relative_error", "same_token")
"""Averaged values; the mean of `same_token` is the share of positions that predict the full model's token."""


def similarity_by_sequence(run: RunPath | pd.DataFrame) -> pd.DataFrame:
    """Means over the tokens per sequence, sorted: `kind`, `budget`, `sequence`, `tokens` (number) and the values.

    Raises:
        InputError: if the run was not measured; names the command.
    """
    grouped = measured(run, similarity).astype({"same_token": float}).groupby(["kind", "budget", "sequence"], sort=True)
    means = grouped[list(VALUES)].mean()
    means.insert(0, "tokens", grouped.size())
    return means.reset_index()


def similarity_by_budget(run: RunPath | pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means over sequences; each counts once, whatever its length.

    Args:
        run: see above.
        bootstrap: resamples of the sequences behind the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        `kind`, `budget`, `sequences` (their number), and for each value its mean and the ends `_low` and `_high` of its
        95 % bootstrap interval over sequences; NaN without one.

    Raises:
        InputError: if the run was not measured; names the command.
    """
    rows = []
    for (kind, budget), part in similarity_by_sequence(run).groupby(["kind", "budget"], sort=True):
        row = {"kind": kind, "budget": budget, "sequences": len(part)}
        for name in VALUES:
            values_N = part[name].to_numpy(float)
            low, high = mean_interval(values_N, resamples=bootstrap, seed=seed) or (float("nan"), float("nan"))
            row |= {name: values_N.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    ends = [f"{name}{end}" for name in VALUES for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["kind", "budget", "sequences", *ends])


def similarity_by_token(run: RunPath | pd.DataFrame) -> pd.DataFrame:
    """Means at each position of the output, over the sequences of at least that length.

    Returns:
        `kind`, `budget`, `token`, `sequences` (their number) and the values, sorted. Later positions are those of
        longer outputs only: compare budgets at a position rather than positions.

    Raises:
        InputError: if the run was not measured; names the command.
    """
    grouped = measured(run, similarity).astype({"same_token": float}).groupby(["kind", "budget", "token"], sort=True)
    means = grouped[list(VALUES)].mean()
    means.insert(0, "sequences", grouped.size())
    return means.reset_index()
