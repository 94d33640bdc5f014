"""Two runs, sequence by sequence."""

from pathlib import Path
from typing import Any

import numpy as np

import analysis
from analysis.compare import paired
from oracle.store import Run

__all__ = ["compare"]

RESAMPLES = 1000


def compare(folder: Path, against: Path, criterion: str | None = None) -> dict[str, Any]:
    """The minimal budgets of two runs on the sequences that both have.

    Args:
        folder: a run.
        against: another one.
        criterion: metric to read both by; their own by default.

    Returns:
        `settings` that differ, with both values; how many sequences are `shared`; means of `fraction` and `against` and
        of the paired `difference` (of the first minus the second, so that below 0 the first needs less), its 95 %
        bootstrap `interval`; on how many sequences the first is `lower`, `equal`, `higher`; on how many the full model
        scores zero in either run (`zero_quality`); `sequences`, a row each.

    Raises:
        InputError: if the runs share no sequences, or their fractions are not of one kind.
    """
    mine, theirs = analysis.load(folder, criterion), analysis.load(against, criterion)
    pairs = paired(mine, theirs)
    difference_N = (pairs["fraction"] - pairs["fraction_against"]).to_numpy(np.float64)
    rows = pairs[["sequence", "task", "fraction"]].assign(
        against=pairs["fraction_against"], difference=difference_N, zero_quality=pairs["zero_quality"]
    )
    return {
        "settings": _settings(Run.open(folder), Run.open(against)),
        "criterion": mine.metric,
        "shared": len(pairs),
        "fraction": float(pairs["fraction"].mean()),
        "against": float(pairs["fraction_against"].mean()),
        "difference": float(difference_N.mean()),
        "interval": analysis.mean_interval(difference_N, resamples=RESAMPLES, seed=mine.seed),
        "lower": int((difference_N < 0).sum()),
        "equal": int((difference_N == 0).sum()),
        "higher": int((difference_N > 0).sum()),
        "zero_quality": int(pairs["zero_quality"].sum()),
        "sequences": rows.to_dict("records"),
    }


def _settings(mine: Run, theirs: Run) -> dict[str, list[Any]]:
    """What the two runs were told differently, and the models' fingerprints if they are two."""
    first, second = (
        {**run.manifest["config"], "fingerprint": run.manifest["model"]["fingerprint"]} for run in (mine, theirs)
    )
    names = dict.fromkeys([*first, *second])
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
