"""The null oracle: what shuffling does to each kind of metric, and that it finds luck and no more."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import Experiment, null_oracle, summarise
from analysis.luck.null_oracle import derangements


def small(kind, score=None, **columns):
    """Two sequences, two layers, two evaluations each."""
    sequences = pd.DataFrame(
        {
            "sequence": ["a", "b"],
            "task": "",
            "references": [["x"], ["y", "z"]],
            "choices": [["p", "q", "r"], ["p", "q"]],
            "answer": pd.array([2, 1], dtype="Int64"),
            "prompt_tokens": [3, 4],
        }
    )
    evaluations = pd.DataFrame(
        {
            "sequence": ["b", "b", "a", "a"],
            "number": [0, 1, 0, 1],
            "allocation": [[0, 1], [1], [0, 1], [0]],
            "cost": [2, 1, 2, 1],
            **columns,
        }
    )
    return Experiment(
        sequences=sequences,
        evaluations=evaluations,
        layers=2,
        unit="layer",
        metric="q",
        kind=kind,
        tolerance=0.0,
        scope="decode",
        floor=0.0,
        seed=0,
        score=score,
    )


SWAP = np.array([[1, 0]])


def test_texts_are_scored_against_the_partner_and_each_pair_once():
    calls = []

    def score(text, references):
        calls.append((text, references))
        return float(text in references)

    experiment = small("text", score, text=["x", "y", "x", "z"], q=[0.0, 1.0, 1.0, 0.0])
    again = np.array([[1, 0], [1, 0], [1, 0]])
    assert experiment.shuffled_quality(again).tolist() == [[1.0, 0.0, 0.0, 1.0]] * 3
    assert sorted(calls) == [("x", ("x",)), ("x", ("y", "z")), ("y", ("x",)), ("z", ("y", "z"))]


def test_tokens_are_compared_with_the_partners_full_output():
    def score(tokens, full):
        return float(tuple(tokens) == tuple(full))

    tokens = [np.array([1, 2]), np.array([3]), np.array([3]), np.array([1, 2])]
    experiment = small("tokens", score, tokens=tokens, q=[1.0, 0.0, 1.0, 0.0])
    assert experiment.shuffled_quality(SWAP).tolist() == [[0.0, 1.0, 0.0, 1.0]]


def test_choices_are_compared_with_the_partners_answer():
    experiment = small("choice", choice=[0.0, 1.0, 1.0, 2.0], q=[0.0, 1.0, 0.0, 1.0])
    # b has two choices, so that a's answer 2 becomes 0.
    assert experiment.shuffled_quality(SWAP).tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_likelihoods_are_stored_and_make_one_permutation():
    experiment = small("likelihood", q=[-1.0, -2.0, -1.0, -2.0], null_q=[-3.0, -3.5, -4.0, -3.0])
    assert experiment.shuffled_quality(np.array([[1, 0]] * 5)).tolist() == [[-3.0, -3.5, -4.0, -3.0]]
    null = null_oracle(experiment)
    assert null.full_quality == -3.5
    assert null.per_sequence == 0.75
    assert null.equal_quality_spread is None
    # From a's cheaper allocation the pair gains more than b loses.
    assert null.equal_quality == 0.5


def test_derangements_move_everything_and_follow_the_seed():
    partner_PN = derangements(7, 50, seed=1)
    assert (np.sort(partner_PN, axis=1) == np.arange(7)).all()
    assert (partner_PN != np.arange(7)).all()
    assert (partner_PN == derangements(7, 50, seed=1)).all()
    assert (partner_PN != derangements(7, 50, seed=2)).any()


def test_derangements_are_uniform():
    # Nine derangements of four, all equally likely.
    counts = pd.Series(map(tuple, derangements(4, 1800, seed=0).tolist())).value_counts()
    assert len(counts) == 9
    assert counts.between(150, 255).all()


def test_one_sequence_has_no_null(run_maker):
    experiment = run_maker(sequences=1)
    assert null_oracle(experiment) is None
    summary = summarise(experiment)
    assert summary.null_equal_quality_fraction is None
    assert summary.equal_quality_interval is None


def test_luck_needs_far_fewer_layers_than_quality_does(experiment):
    summary = summarise(experiment, bootstrap=0)
    assert 0 < summary.null_equal_quality_fraction < summary.equal_quality_fraction / 2
    assert 0 < summary.null_per_sequence_fraction < summary.per_sequence_fraction / 2
    assert summary.null_equal_quality_spread > 0
    assert summary.null.full_quality < summary.full_quality


def test_shuffling_what_is_shuffled_already_changes_little(experiment):
    """Outputs that have nothing to do with the references: the oracle's savings are luck, and no more."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 40, 14)) for _ in range(len(experiment.evaluations))]
    references = dict(zip(experiment.sequences["sequence"], experiment.sequences["references"], strict=True))
    evaluations = experiment.evaluations.assign(text=texts)
    evaluations["rougeL"] = [
        experiment.score(text, references[sequence])
        for text, sequence in zip(texts, evaluations["sequence"], strict=True)
    ]
    summary = summarise(replace(experiment, evaluations=evaluations), bootstrap=0)
    margin = 4 * summary.null_per_sequence_spread
    assert summary.per_sequence_fraction == pytest.approx(summary.null_per_sequence_fraction, abs=margin)
    assert margin < 0.2


def test_every_permutation_is_a_run_of_its_own(experiment):
    """Each fraction is that of a run whose references were shuffled by hand."""
    null = null_oracle(experiment, permutations=3)
    names = experiment.sequences["sequence"].tolist()
    references = experiment.sequences["references"].tolist()
    for place, partner_N in enumerate(derangements(len(names), 3, experiment.seed)):
        theirs = {name: references[other] for name, other in zip(names, partner_N, strict=True)}
        rows = experiment.evaluations[["sequence", "text"]].itertuples(index=False)
        quality_E = [experiment.score(text, theirs[sequence]) for sequence, text in rows]
        shuffled = replace(experiment, evaluations=experiment.evaluations.assign(rougeL=quality_E), exhausted={})
        summary = summarise(shuffled, bootstrap=0, permutations=0)
        assert null.equal_quality_fractions[place] == pytest.approx(summary.equal_quality_fraction)
        assert null.per_sequence_fractions[place] == pytest.approx(summary.per_sequence_fraction)
        assert null.full_qualities[place] == pytest.approx(summary.full_quality)
