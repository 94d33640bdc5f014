"""Two runs, sequence by sequence."""

from pathlib import Path
from typing import Any

import numpy as np

import analysis
from oracle.errors import InputError
from oracle.store import Run

__all__ = ["compare"]

RESAMPLES = 1000

SAME = {"unit": "unit", "measure": "cost", "metric": "criterion", "tolerance": "tolerance"}
"""What fractions have to agree in to be of one kind, and its name."""


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
    for attribute, name in SAME.items():
        found = getattr(mine, attribute), getattr(theirs, attribute)
        if found[0] != found[1]:
            hint = "; read both by one metric with --criterion" if name in ("criterion", "tolerance") else ""
            raise InputError(f"two runs of the same {name} are required, not of {found[0]} and {found[1]}{hint}")
    _check_sequences(mine, theirs)
    pairs = _fractions(mine).merge(_fractions(theirs), on="sequence", suffixes=("", "_against"))
    difference_N = (pairs["fraction"] - pairs["fraction_against"]).to_numpy(np.float64)
    zero_N = pairs["zero_quality"] | pairs["zero_quality_against"]
    rows = pairs[["sequence", "task", "fraction"]].assign(
        against=pairs["fraction_against"], difference=difference_N, zero_quality=zero_N
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
        "zero_quality": int(zero_N.sum()),
        "sequences": rows.to_dict("records"),
    }


def _fractions(experiment: analysis.Experiment) -> Any:
    minimal = analysis.budgets(experiment).merge(experiment.sequences[["sequence", "task"]], on="sequence")
    minimal["fraction"] = minimal["upper"] / experiment.full_cost
    return minimal[["sequence", "task", "fraction", "zero_quality"]]


def _check_sequences(mine: analysis.Experiment, theirs: analysis.Experiment) -> None:
    """Makes sure that there are sequences of the same name, and that they are the same."""
    asked = [_questions(one) for one in (mine, theirs)]
    shared = [name for name in asked[0] if name in asked[1]]
    if not shared:
        examples = " and ".join(f"'{next(iter(one))}'" for one in asked)
        raise InputError(f"two runs that share sequences are required, but these have none in common: {examples}, ...")
    for name in shared:
        if asked[0][name] != asked[1][name]:
            raise InputError(
                f"two runs on the same sequences are required, but '{name}' has another prompt or other references in "
                "the second; give the sequences ids of their own"
            )


def _questions(experiment: analysis.Experiment) -> dict[str, tuple[Any, ...]]:
    rows = experiment.sequences[["sequence", "prompt", "references", "choices", "answer"]].itertuples(index=False)
    return {
        name: (prompt, tuple(references), tuple(choices), None if answer != answer else answer)
        for name, prompt, references, choices, answer in rows
    }


def _settings(mine: Run, theirs: Run) -> dict[str, list[Any]]:
    """What the two runs were told differently, and the models' fingerprints if they are two."""
    first, second = (
        {**run.manifest["config"], "fingerprint": run.manifest["model"]["fingerprint"]} for run in (mine, theirs)
    )
    names = dict.fromkeys([*first, *second])
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
