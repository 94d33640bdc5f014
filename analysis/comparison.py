"""Paired comparison of two or more runs on the same sequences: size and certainty of the differences.

In shapes, X is the tests of a table.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.experiment import Experiment, InputError, as_experiment, load
from analysis.grouping import FloatArray
from analysis.per_sequence.savings import by_sequence
from analysis.stats import mean_interval
from oracle.store import Run
from oracle.types import RunPath
from oracle.utils.validation import check_list

__all__ = ["compare", "compare_two", "holm", "paired", "signed_rank"]

RESAMPLES = 1000

MEASURES = ("fraction", "quality", "full_quality")
"""Compared quantities: minimal fractions, the qualities there, and the full models' qualities."""

SAME = {"unit": "unit", "measure": "cost", "metric": "criterion", "tolerance": "tolerance"}
"""Attributes of an experiment that must agree for its fractions to be comparable -> their names in messages."""

QUESTION = ("prompt", "references", "choices", "answer")
"""Columns in which two sequences of one id must agree."""

ROUNDING = 1e-12
"""Differences below this count as zero: otherwise rounding errors would get ranks."""


def compare(
    runs: RunPath | Sequence[RunPath] | Mapping[str, RunPath],
    *others: RunPath,
    criterion: str | None = None,
    informative: bool = True,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Pairwise comparison of runs, on the sequences that both have.

    Args:
        runs: at least two, in a list or by name, as in `compare({"a": "runs/a", "b": "runs/b"})`; or the first run.
            Without names they are named after their folders or positions.
        others: the other runs, if `runs` is a single one: `compare("runs/a", "runs/b")`.
        criterion: metric by which folders are read; None for each run's own.
        informative: leave out sequences that tell nothing in either run; see `analysis.per_sequence.savings.budgets`.
        resamples: B of the bootstrap over sequences; 0 for no intervals.

    Returns:
        One row per pair of runs and entry of `MEASURES`: `first`, `second`, `measure`; number of `sequences`, and of
        those where a full model scores zero (`zero_quality`); means of both (`mean_first`, `mean_second`) and of the
        paired `difference`, first minus second, with the ends `low` and `high` of its 95 % percentile bootstrap
        interval; numbers of sequences on which the first is `lower`, `equal`, `higher`; two effect sizes, `cohen_d`
        (mean difference over the standard deviation of the differences, d_z: Lakens 2013; NaN where that is 0) and
        `rank_biserial` (rank sum of the positive differences minus that of the negative ones, over both, -1..1: Kerby
        2014; 0 without differences); `p` of Wilcoxon's two-sided signed-rank test (1 where all are equal) and `p_holm`,
        corrected after Holm 1979 for all tests of the table with any difference.

    Raises:
        InputError: for fewer than two runs, runs that share no sequences, or fractions that are not comparable.
    """
    named = _named(runs, others)
    if len(named) < 2:
        raise InputError(f"at least two runs are required to compare, got {len(named)}: name another one")
    read = {name: as_experiment(run, criterion) for name, run in named.items()}
    rows = []
    for (first, one), (second, other) in combinations(read.items(), 2):
        pairs = paired(one, other)
        if informative:
            pairs = pairs[pairs["informative"]]
            if pairs.empty:
                raise InputError(
                    f"a sequence that tells something in both runs is required, {first} and {second} share none: "
                    "compare them with informative=False, or runs by another criterion or scope"
                )
        for measure in MEASURES:
            values = pairs[measure].to_numpy(np.float64), pairs[f"{measure}_against"].to_numpy(np.float64)
            label = {"first": first, "second": second, "measure": measure}
            counts = {"sequences": len(pairs), "zero_quality": int(pairs["zero_quality"].sum())}
            rows.append({**label, **counts, **_row(*values, resamples=resamples, seed=one.seed)})
    table = pd.DataFrame(rows)
    tested = (table["equal"] < table["sequences"]).to_numpy()
    table["p_holm"] = 1.0
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    return table


def compare_two(folder: Path, against: Path, criterion: str | None = None) -> dict[str, Any]:
    """Minimal budgets of two runs on the sequences that both have.

    Args:
        folder: a run.
        against: another run.
        criterion: metric by which both are read; None for their own.

    Returns:
        `settings` that differ, with both values; number of `shared` sequences, and of those that tell something in both
        runs (`informative`); over these, None if there are none: means of `fraction`, `against` and the paired
        `difference` (first minus second: below 0 the first needs less) with its 95 % bootstrap `interval` and `p` of
        Wilcoxon's two-sided signed-rank test; numbers of sequences on which the first is `lower`, `equal`, `higher`;
        number of shared sequences on which the full model scores zero in either run (`zero_quality`); `sequences`, one
        row each.

    Raises:
        InputError: if the runs share no sequences, or their fractions are not comparable.
    """
    mine, theirs = load(folder, criterion), load(against, criterion)
    pairs = paired(mine, theirs)
    rows = pairs[["sequence", "task", "fraction"]].assign(
        against=pairs["fraction_against"],
        difference=pairs["fraction"] - pairs["fraction_against"],
        zero_quality=pairs["zero_quality"],
        informative=pairs["informative"],
    )
    told = rows[rows["informative"]]
    difference_N = told["difference"].to_numpy(np.float64, copy=True)
    difference_N[abs(difference_N) < ROUNDING] = 0.0

    def mean(name: str) -> float | None:
        return float(told[name].mean()) if len(told) else None

    return {
        "settings": _settings(Run.open(folder), Run.open(against)),
        "criterion": mine.metric,
        "shared": len(pairs),
        "informative": len(told),
        "fraction": mean("fraction"),
        "against": mean("against"),
        "difference": mean("difference"),
        "interval": mean_interval(difference_N, resamples=RESAMPLES, seed=mine.seed) if len(told) else None,
        "p": signed_rank(difference_N)[1] if len(told) else None,
        **_counts(difference_N),
        "zero_quality": int(pairs["zero_quality"].sum()),
        "sequences": rows.to_dict("records"),
    }


def paired(first: Experiment, second: Experiment) -> pd.DataFrame:
    """Minimal budgets of two runs on the sequences that both have.

    Returns:
        One row per sequence, in the order of the first run: `sequence`, `task`; `fraction`, `quality` and
        `full_quality` of the first run, with `_against` of the second; `zero_quality`, whether a full model scores
        zero; `informative`, whether it tells something in both runs.

    Raises:
        InputError: if the runs share no sequences, a shared sequence differs, or their fractions are not comparable.
    """
    for attribute, name in SAME.items():
        found = getattr(first, attribute), getattr(second, attribute)
        if found[0] != found[1]:
            hint = "; read both by one metric with --criterion" if name in ("criterion", "tolerance") else ""
            raise InputError(f"two runs of the same {name} are required, not of {found[0]} and {found[1]}{hint}")
    _check_sequences(first, second)
    columns = ["sequence", *MEASURES, "zero_quality", "informative"]
    one, other = by_sequence(first)[["task", *columns]], by_sequence(second)[columns]
    pairs = one.merge(other, on="sequence", suffixes=("", "_against"), validate="one_to_one")
    pairs["zero_quality"] |= pairs.pop("zero_quality_against")
    pairs["informative"] &= pairs.pop("informative_against")
    values = [f"{name}{end}" for name in MEASURES for end in ("", "_against")]
    return pairs[["sequence", "task", *values, "zero_quality", "informative"]]


def _named(runs: RunPath | Sequence[RunPath] | Mapping[str, RunPath], others: Sequence[RunPath]) -> dict[str, RunPath]:
    if others:
        if not isinstance(runs, str | os.PathLike):
            raise InputError("several runs are required either in one list or one after the other, not in both ways")
        runs = [runs, *others]
    if isinstance(runs, Mapping):
        return dict(runs)
    if isinstance(runs, str | os.PathLike):
        raise InputError("runs must be a list of runs, not a single one: give at least two, as in compare(one, other)")
    check_list(runs, "runs")
    names = [_name(run) or f"run {i}" for i, run in enumerate(runs, start=1)]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names, start=1)]
    return dict(zip(names, runs, strict=True))


def _name(run: RunPath) -> str:
    """Name of a run's folder; empty for what was read already, or is no run."""
    if isinstance(run, Run):
        return run.folder.name
    return Path(run).name if isinstance(run, str | Path) else ""


def _row(first_N: FloatArray, second_N: FloatArray, *, resamples: int, seed: int) -> dict[str, Any]:
    difference_N = first_N - second_N
    difference_N[abs(difference_N) < ROUNDING] = 0.0
    low, high = mean_interval(difference_N, resamples=resamples, seed=seed) or (np.nan, np.nan)
    rank_biserial, p = signed_rank(difference_N)
    deviation = difference_N.std(ddof=1) if len(difference_N) > 1 else 0.0
    return {
        "mean_first": first_N.mean(),
        "mean_second": second_N.mean(),
        "difference": difference_N.mean(),
        "low": low,
        "high": high,
        **_counts(difference_N),
        "cohen_d": difference_N.mean() / deviation if deviation > 0 else np.nan,
        "rank_biserial": rank_biserial,
        "p": p,
    }


def _counts(difference_N: FloatArray) -> dict[str, int]:
    signs = np.sign(difference_N).tolist()
    return {"lower": signs.count(-1), "equal": signs.count(0), "higher": signs.count(1)}


def signed_rank(difference_N: FloatArray) -> tuple[float, float]:
    """Matched-pairs rank-biserial correlation and p of Wilcoxon's test; sequences without a difference are left out."""
    from scipy.stats import rankdata, wilcoxon  # slow to import, and not every query needs it

    left = difference_N[difference_N != 0]
    if not len(left):
        return 0.0, 1.0
    rank = rankdata(abs(left))
    return float((np.sign(left) * rank).sum() / rank.sum()), float(wilcoxon(left).pvalue)


def holm(p_X: FloatArray) -> FloatArray:
    """P-values corrected for their number: step-down Bonferroni (Holm 1979)."""
    order = np.argsort(p_X, kind="stable")
    stepped = np.maximum.accumulate(p_X[order] * np.arange(len(p_X), 0, -1))
    corrected = np.empty(len(p_X))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _check_sequences(first: Experiment, second: Experiment) -> None:
    """Checks that there are sequences of the same id, and that they are the same."""
    asked = [_questions(one) for one in (first, second)]
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


def _questions(experiment: Experiment) -> dict[str, tuple[Any, ...]]:
    rows = experiment.sequences[["sequence", *QUESTION]].itertuples(index=False)
    return {
        name: (prompt, tuple(references), tuple(choices), None if answer != answer else answer)
        for name, prompt, references, choices, answer in rows
    }


def _settings(mine: Run, theirs: Run) -> dict[str, list[Any]]:
    """Settings in which the two runs differ, and the models' fingerprints if these differ."""
    first, second = (
        {**run.manifest["config"], "fingerprint": run.manifest["model"]["fingerprint"]} for run in (mine, theirs)
    )
    names = dict.fromkeys([*first, *second])
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
