"""Correlates of a small minimal budget, and predictors of it.

A prediction counts only on sequences it was not fitted to, and only as far as it beats predicting the mean. A
controller can use what is known before the first token (`BEFORE`); the other features only show correlations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.display import Shown
from analysis.experiment import InputError, as_experiment
from analysis.formatting import counted
from analysis.grouping import FloatArray
from analysis.measurements import features as features_of
from analysis.per_sequence.measured import measured
from analysis.per_sequence.savings import budgets
from analysis.stats import intervals
from oracle.types import RunPath

__all__ = ["AFTER", "BEFORE", "ENOUGH", "LEAST", "Cheap", "what_makes_cheap"]

BEFORE = ("prompt_tokens", "first_entropy", "first_gap")
"""Numbers known after the prompt pass, besides the task and the prompt's hidden state."""

AFTER = ("output_tokens", "log_likelihood", "entropy")
"""Numbers known after the full model's output."""

LEAST = 10
"""Minimum number of sequences for a fit."""

ENOUGH = 100
"""Minimum number of sequences for a meaningful prediction: with fewer, R^2 varies by more than most effects."""

FOLDS = 10

COMPONENTS = 8
"""Principal components of the prompt's hidden state used by a predictor."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Cheap(Shown):
    """Correlates and predictors of the minimal budget.

    Attributes:
        correlations: one row per feature: `feature`; `known` (`before` or `after` the output); `measure` (`spearman`,
            or for the task `epsilon squared` of the Kruskal-Wallis test, 0 to 1); `value`, with `low` and `high`, the
            ends of its 95 % bootstrap interval over sequences (NaN for the task, whose measure a bootstrap inflates);
            `p`, two-sided; `p_corrected` for the number of rows (false discovery rate of Benjamini and Yekutieli 2001,
            valid for dependent features). NaN where a feature does not vary.
        predictors: one row per model and set of features: `model` (`ridge`, `boosting`), `features` (`before`, or
            `all`: also those known after), `r2`, out of fold, 1 - squared error over that of the mean of the same
            training folds, so that 0 is no better than the mean; `rank_correlation`, Spearman's, of prediction and
            truth out of fold (below 0 where nothing is predicted: without a dear sequence the mean of the others is
            low); both with `_low` and `_high`, the ends of their 95 % bootstrap intervals over sequences, with the fits
            held fixed; `error` and `error_of_mean`, mean absolute errors in fractions. Empty for fewer than `LEAST`.
        sequences: N; those that tell nothing (zero quality, or vacuous) are left out.
        enough: whether N is at least `ENOUGH`.
        remark: conclusion, in one sentence.
    """

    correlations: pd.DataFrame
    predictors: pd.DataFrame
    sequences: int
    enough: bool
    remark: str


def what_makes_cheap(experiment: RunPath, features: pd.DataFrame | None = None, *, bootstrap: int = 1000) -> Cheap:
    """Relates the minimal fraction of each sequence to its features.

    The predictors have fixed settings except the ridge penalty, which each training fold chooses by leave-one-out;
    scaling, principal components and the coding of tasks are fitted inside the folds.

    Args:
        experiment: the run.
        features: table of `analysis.measurements.features`; None for that of the run.
        bootstrap: resamples of the sequences behind the intervals; 0 for none.

    Raises:
        InputError: if the features are not those of the run's sequences, or the run was not measured.
    """
    experiment = as_experiment(experiment)
    features = measured(experiment if features is None else features, features_of)
    minimal = budgets(experiment)
    table = minimal[minimal["informative"]].merge(experiment.sequences[["sequence", "task"]], on="sequence")
    lacking = set(table["sequence"]) - set(features["sequence"])
    if lacking:
        raise InputError(
            f"features of every sequence are required, '{min(lacking)}' has none: run 'oracle measure' on the run again"
        )
    known = features.drop(columns=[name for name in ("task",) if name in features])
    table = table.merge(known, on="sequence", how="left", validate="one_to_one")
    table["fraction"] = table["upper"] / experiment.full_cost
    correlations = _correlations(table, bootstrap, experiment.seed)
    fitted = len(table) >= LEAST and table["fraction"].nunique() > 1
    predictors = _predictors(table, bootstrap, experiment.seed) if fitted else pd.DataFrame()
    return Cheap(
        correlations=correlations,
        predictors=predictors,
        sequences=len(table),
        enough=len(table) >= ENOUGH,
        remark=_remark(len(table), predictors),
    )


def _remark(N: int, predictors: pd.DataFrame) -> str:
    if not len(predictors):
        return f"{counted(N)} with differing budgets: too few to fit anything; search at least {LEAST}."
    best = predictors.nlargest(1, "r2").iloc[0]
    beats = best["r2_low"] > 0
    said = f"the best of them explains {100 * max(0.0, best['r2']):.0f} % of the variance out of fold"
    if N < ENOUGH:
        few = f"{counted(N)} {'is' if N == 1 else 'are'} too few"
        return f"{few}: {said}, but {ENOUGH} are needed for a meaningful result."
    return f"Of {len(predictors)} predictors {said}" + ("." if beats else ", which does not differ clearly from 0.")


def _correlations(table: pd.DataFrame, bootstrap: int, seed: int) -> pd.DataFrame:
    from scipy.stats import false_discovery_control

    rows = []
    truth_N = table["fraction"].to_numpy(float)
    for known, names in (("before", BEFORE), ("after", AFTER)):
        for name in names:
            related = _spearman(table[name].to_numpy(float), truth_N, bootstrap, seed)
            rows.append({"feature": name, "known": known, **related})
    rows.append({"feature": "task", "known": "before", **_by_task(table)})
    found = pd.DataFrame(rows)
    tested = found["p"].notna()
    found["p_corrected"] = np.nan
    if tested.any():
        found.loc[tested, "p_corrected"] = false_discovery_control(found.loc[tested, "p"], method="by")
    return found


def _spearman(feature_N: FloatArray, truth_N: FloatArray, bootstrap: int, seed: int) -> dict[str, Any]:
    """Rank correlation with its interval and p-value."""
    from scipy.stats import spearmanr

    found: dict[str, Any] = {"measure": "spearman", "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
    if len(truth_N) < 3 or np.ptp(feature_N) == 0 or np.ptp(truth_N) == 0:
        return found
    result = spearmanr(feature_N, truth_N)
    low, high = _resampled(_rank, (feature_N, truth_N), bootstrap, seed)
    return {**found, "value": float(result.statistic), "p": float(result.pvalue), "low": low, "high": high}


def _by_task(table: pd.DataFrame) -> dict[str, Any]:
    """Kruskal-Wallis over the tasks; epsilon squared is H (N + 1) / (N^2 - 1) (Kelley 1935)."""
    from scipy.stats import kruskal

    found: dict[str, Any] = {"measure": "epsilon squared", "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
    groups, N = [part.to_numpy(float) for _, part in table.groupby("task")["fraction"]], len(table)
    if len(groups) < 2 or len(groups) >= N or table["fraction"].nunique() < 2:
        return found
    result = kruskal(*groups)
    return {**found, "value": float(result.statistic) * (N + 1) / (N**2 - 1), "p": float(result.pvalue)}


def _predictors(table: pd.DataFrame, bootstrap: int, seed: int) -> pd.DataFrame:
    """Out-of-fold predictions of each model from each set of features."""
    from sklearn.dummy import DummyRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    truth_N = table["fraction"].to_numpy(float)
    folds = KFold(min(FOLDS, len(table)), shuffle=True, random_state=seed)
    mean_N = cross_val_predict(DummyRegressor(), np.zeros((len(table), 1)), truth_N, cv=folds)
    rows = []
    for features, names in (("before", BEFORE), ("all", BEFORE + AFTER)):
        inputs, tasks = _inputs(table, names)
        for model, pipeline in _models(len(names), tasks, inputs.shape, seed).items():
            guess_N = cross_val_predict(pipeline, inputs, truth_N, cv=folds)
            rows.append({"model": model, "features": features, **_score(truth_N, guess_N, mean_N, bootstrap, seed)})
    return pd.DataFrame(rows)


def _inputs(table: pd.DataFrame, names: tuple[str, ...]) -> tuple[FloatArray, int]:
    """Numbers, then one column per task, then the prompt's state; and the number of tasks."""
    tasks = pd.get_dummies(table["task"]).to_numpy(float)
    states = np.stack([np.asarray(state, dtype=float) for state in table["prompt_state"]])
    return np.column_stack([table[list(names)].to_numpy(float), tasks, states]), tasks.shape[1]


def _models(numbers: int, tasks: int, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """The predictors, with their preprocessing of the inputs: numbers, then tasks, then states."""
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, shape[1] - numbers - tasks, shape[0] // 4)
    states = make_pipeline(StandardScaler(), PCA(components, svd_solver="full"), StandardScaler())
    seen = ColumnTransformer(
        [
            ("numbers", StandardScaler(), slice(0, numbers)),
            ("tasks", "passthrough", slice(numbers, numbers + tasks)),
            ("states", states, slice(numbers + tasks, None)),
        ]
    )
    boosting = GradientBoostingRegressor(
        n_estimators=100, max_depth=2, learning_rate=0.05, subsample=0.8, random_state=seed
    )
    return {
        "ridge": make_pipeline(seen, RidgeCV(np.geomspace(1e-1, 1e4, 11))),
        "boosting": make_pipeline(seen, boosting),
    }


def _score(truth_N: FloatArray, guess_N: FloatArray, mean_N: FloatArray, bootstrap: int, seed: int) -> dict[str, float]:
    """Scores of a prediction, compared with predicting the mean."""
    r2_low, r2_high = _resampled(_r2, (truth_N, guess_N, mean_N), bootstrap, seed)
    rank_low, rank_high = _resampled(_rank, (truth_N, guess_N), bootstrap, seed)
    return {
        "r2": float(_r2(truth_N, guess_N, mean_N)),
        "r2_low": r2_low,
        "r2_high": r2_high,
        "rank_correlation": float(_rank(truth_N, guess_N)),
        "rank_correlation_low": rank_low,
        "rank_correlation_high": rank_high,
        "error": float(np.abs(truth_N - guess_N).mean()),
        "error_of_mean": float(np.abs(truth_N - mean_N).mean()),
    }


def _resampled(
    statistic: Callable[..., FloatArray], columns: tuple[FloatArray, ...], bootstrap: int, seed: int
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of several values per sequence; NaN without resamples."""

    def of_places(place_BN: FloatArray, axis: int = -1) -> FloatArray:
        assert axis == -1, "sequences are resampled along the last axis"
        return statistic(*(column[place_BN.astype(np.int64)] for column in columns))

    found = intervals(np.arange(len(columns[0]), dtype=np.float64), of_places, resamples=bootstrap, seed=seed)
    return (np.nan, np.nan) if found is None else (float(found[0]), float(found[1]))


def _r2(truth_BN: FloatArray, guess_BN: FloatArray, mean_BN: FloatArray) -> FloatArray:
    """Share of the mean's squared error that a prediction removes; 0 if the mean has none."""
    left_B, whole_B = (((truth_BN - each) ** 2).sum(axis=-1) for each in (guess_BN, mean_BN))
    return 1 - np.divide(left_B, whole_B, out=np.ones_like(whole_B), where=whole_B > 0)


def _rank(one_BN: FloatArray, other_BN: FloatArray) -> FloatArray:
    """Spearman's rank correlation along the last axis; 0 if either input is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(each, axis=-1) for each in (one_BN, other_BN)]
    a_BN, b_BN = (each - each.mean(axis=-1, keepdims=True) for each in ranks)
    scale_B = np.sqrt((a_BN**2).sum(axis=-1) * (b_BN**2).sum(axis=-1))
    return np.divide((a_BN * b_BN).sum(axis=-1), scale_B, out=np.zeros_like(scale_B), where=scale_B > 0)
