"""What makes a sequence cheap: correlations by scipy, and predictors that find what is there and nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kruskal, spearmanr
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from tables import judged

from analysis import InputError, budgets, what_makes_cheap
from analysis.per_sequence.predictors import AFTER, BEFORE

LAYERS = 20


def run_of(fractions):
    """A run in which each sequence needs just this fraction of 20 layers."""
    need_N = np.rint(np.asarray(fractions) * LAYERS)
    quality_NK = (np.arange(LAYERS + 1) >= need_N[:, None]).astype(float)
    return judged(quality_NK[..., None], floor=0.0)


def features_of(experiment, seed=0, width=6, **columns):
    rng, N = np.random.default_rng(seed), len(experiment.sequences)
    return pd.DataFrame(
        {
            "sequence": experiment.sequences["sequence"],
            **{name: rng.random(N) for name in (*BEFORE, *AFTER)},
            "prompt_state": [*rng.normal(size=(N, width)).astype(np.float32)],
            **columns,
        }
    )


def test_correlations_are_scipys_and_corrected():
    rng = np.random.default_rng(0)
    fractions = rng.uniform(0.1, 0.9, 40)
    experiment = run_of(fractions)
    features = features_of(experiment, prompt_tokens=np.rint(10 * fractions + rng.normal(0, 2, 40)), first_gap=0.5)
    found = what_makes_cheap(experiment, features, bootstrap=100)
    table = found.correlations.set_index("feature")
    truth = budgets(experiment)["upper"]
    for name in (*BEFORE, *AFTER):
        if name == "first_gap":  # does not vary
            assert table.loc[name, ["value", "p", "p_corrected"]].isna().all()
            continue
        expected = spearmanr(features[name], truth)
        assert table.loc[name, "value"] == pytest.approx(expected.statistic)
        assert table.loc[name, "p"] == pytest.approx(expected.pvalue)
        assert table.loc[name, "low"] < table.loc[name, "value"] < table.loc[name, "high"]
    tasks = experiment.sequences["task"]
    expected = kruskal(*(truth[tasks == task] for task in ("a", "b")))
    assert table.loc["task", "p"] == pytest.approx(expected.pvalue)
    assert table.loc["task", "value"] == pytest.approx(expected.statistic * 41 / (40**2 - 1))
    # Benjamini and Yekutieli by hand: p m c(m) / rank, made monotonous from the largest down.
    p = table["p"].dropna().sort_values()
    m = len(p)
    raw = p * m * (1 / np.arange(1, m + 1)).sum() / np.arange(1, m + 1)
    corrected = raw[::-1].cummin()[::-1].clip(upper=1)
    assert table.loc[p.index, "p_corrected"].to_numpy() == pytest.approx(corrected.to_numpy())
    assert (m, found.sequences) == (6, 40)


def test_what_is_there_is_found():
    rng = np.random.default_rng(1)
    fractions = rng.uniform(0.1, 0.9, 120)
    experiment = run_of(fractions)
    state = np.column_stack([3 * fractions, *rng.normal(size=(4, 120))])
    found = what_makes_cheap(experiment, features_of(experiment, prompt_state=[*state]), bootstrap=50)
    assert found.enough
    table = found.predictors.set_index(["model", "features"])
    assert (table["r2"] > 0.7).all()
    assert (table["rank_correlation"] > 0.85).all()
    assert (table["r2_low"] < table["r2"]).all()
    assert (table["r2"] < table["r2_high"]).all()
    assert (table["error"] < 0.5 * table["error_of_mean"]).all()
    assert "explains" in found.remark


def test_what_is_known_after_the_output_is_kept_apart():
    fractions = np.random.default_rng(2).uniform(0.1, 0.9, 100)
    experiment = run_of(fractions)
    found = what_makes_cheap(experiment, features_of(experiment, entropy=fractions), bootstrap=0)
    table = found.predictors.set_index(["model", "features"])["r2"]
    assert table["ridge", "all"] > 0.8
    assert table["ridge", "before"] < 0.2
    assert found.correlations.set_index("feature")["known"].to_dict() == {
        **dict.fromkeys((*BEFORE, "task"), "before"),
        **dict.fromkeys(AFTER, "after"),
    }


def test_noise_in_many_dimensions_predicts_nothing():
    """Components that were fitted outside the folds, or in-sample scores, would find something here."""
    experiment = run_of(np.random.default_rng(3).uniform(0.1, 0.9, 60))
    found = what_makes_cheap(experiment, features_of(experiment, seed=4, width=300), bootstrap=50)
    assert (found.predictors["r2"] < 0.1).all()
    assert (found.predictors["r2_low"] < 0).all()
    assert not found.enough
    assert "are too few:" in found.remark


def test_the_score_is_against_the_mean_of_the_training_folds():
    rng = np.random.default_rng(5)
    experiment = run_of(rng.uniform(0.1, 0.9, 30))
    found = what_makes_cheap(experiment, features_of(experiment), bootstrap=0)
    truth = budgets(experiment)["upper"].to_numpy() / LAYERS
    mean = np.empty(30)
    for train, test in KFold(10, shuffle=True, random_state=experiment.seed).split(truth):
        mean[test] = truth[train].mean()
    row = found.predictors.iloc[0]
    assert row["error_of_mean"] == pytest.approx(np.abs(truth - mean).mean())
    # A mean of others is worse than that of all, by which sklearn measures.
    assert r2_score(truth, mean) < 0


def test_few_sequences_are_said_to_be_few():
    experiment = run_of(np.linspace(0.1, 0.9, 9))
    found = what_makes_cheap(experiment, features_of(experiment), bootstrap=0)
    assert (found.sequences, found.enough, len(found.predictors)) == (9, False, 0)
    assert "too few to fit anything" in found.remark


def test_features_of_other_sequences_are_refused():
    experiment = run_of(np.linspace(0.1, 0.9, 12))
    with pytest.raises(InputError, match="'s0011' has none: run 'oracle measure'"):
        what_makes_cheap(experiment, features_of(experiment).iloc[:-1])
