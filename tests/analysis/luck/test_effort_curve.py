"""The luck curve, each point what the summary says of the run that ended there, and a search's progress."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Experiment, luck_curve, progress_curve, summarise
from analysis.luck import effort_curve as curve_module

FALLING = ["per_sequence", "equal_quality", "null_per_sequence", "null_equal_quality"]
ENDS = [f"{name}_{end}" for name in FALLING[:2] for end in ("low", "high")]


def closeness(text, references):
    """One, or less by a fifth for each step between two digits: coarse, so that many outputs tie."""
    return 1 - abs(int(text) - int(references[0])) / 5


def random_run(seed, *, sequences=5, tries=9, layers=4, tolerance=0.0):
    """Some sequences stop early, some tries were dropped and left no row, some are dearer than the full model."""
    rng = np.random.default_rng(seed)
    references = rng.integers(0, 6, sequences)
    rows = []
    for n in range(sequences):
        kept = 1 + np.flatnonzero(rng.random(int(rng.integers(tries))) < 0.8)
        for number in [0, *kept.tolist()]:
            cost = int(rng.integers(0, layers + 2)) if number else layers
            text = str(int(np.clip(references[n] + rng.integers(-3, 4), 0, 5)))
            rows.append((f"s{n}", number, list(range(min(cost, layers))), cost, [1], text))
    table = pd.DataFrame(rows, columns=["sequence", "number", "allocation", "cost", "tokens", "text"])
    quality = [
        closeness(text, [references[int(name[1:])]])
        for name, text in zip(table["sequence"], table["text"], strict=True)
    ]
    return Experiment(
        sequences=pd.DataFrame(
            {
                "sequence": [f"s{n}" for n in range(sequences)],
                "references": [[str(reference)] for reference in references],
                "prompt_tokens": 3,
            }
        ),
        evaluations=table.assign(family="random", q=quality, null_q=rng.random(len(table))),
        layers=layers,
        unit="layer",
        metric="q",
        kind="text",
        tolerance=tolerance,
        scope="decode",
        floor=0.0,
        seed=seed,
        score=closeness,
    )


def said_by_summary(experiment, *, bootstrap, permutations):
    summary = summarise(experiment, bootstrap=bootstrap, permutations=permutations)
    intervals = [*(summary.per_sequence_interval or ()), *(summary.equal_quality_interval or ())]
    null = [summary.null_per_sequence_fraction, summary.null_equal_quality_fraction]
    return dict(
        zip(
            [*FALLING, *ENDS],
            [summary.per_sequence_fraction, summary.equal_quality_fraction, *null, *intervals],
            strict=True,
        )
    )


@given(seed=st.integers(0, 10_000), tolerance=st.sampled_from([0.0, 0.2]), shuffle=st.booleans())
@settings(max_examples=5, deadline=None)
def test_every_point_is_the_summary_of_the_run_that_ended_there(seed, tolerance, shuffle):
    experiment = random_run(seed, tolerance=tolerance)
    given_order = experiment.evaluations
    if shuffle:
        experiment = replace(experiment, evaluations=given_order.sample(frac=1, random_state=seed, ignore_index=True))
    curve = luck_curve(experiment, bootstrap=20, permutations=3)
    for row in curve.to_dict("records"):
        ended = replace(experiment, evaluations=given_order[given_order["number"] < row["allocations"]])
        expected = said_by_summary(ended, bootstrap=20, permutations=3)
        # Resamples name sequences by their place, which a shuffle changes.
        names = FALLING if shuffle else [*FALLING, *ENDS]
        assert {name: row[name] for name in names} == pytest.approx({name: expected[name] for name in names}, abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_nothing_rises_with_the_tries(seed):
    curve = luck_curve(random_run(seed, sequences=6, tries=30, layers=6), bootstrap=20, permutations=2)
    assert (curve.loc[0, [*FALLING, *ENDS]] == 1.0).all()
    assert (curve[[*FALLING, *ENDS]].diff().iloc[1:] <= 1e-12).all(axis=None)


def test_the_last_point_is_the_summary_of_a_real_run(experiment):
    last = luck_curve(experiment).iloc[-1]
    assert last["allocations"] == 120
    assert last[[*FALLING, *ENDS]].to_dict() == pytest.approx(
        said_by_summary(experiment, bootstrap=1000, permutations=10), abs=1e-12
    )


@pytest.mark.parametrize("tries", [1, 2, 3, 120, 1000])
def test_the_tries_are_halved_again_and_again(tries):
    experiment = random_run(0, sequences=1)
    full = experiment.evaluations[experiment.evaluations["number"] == 0]
    evaluations = pd.concat([full, full.assign(number=tries - 1, cost=2)] if tries > 1 else [full])
    counts = luck_curve(replace(experiment, evaluations=evaluations), bootstrap=0)["allocations"].tolist()
    assert (counts[0], counts[-1]) == (1, tries)
    assert round(tries / 2) in counts or tries == 1
    assert counts == sorted(set(counts))
    assert len(counts) <= 1 + curve_module.POINTS * np.ceil(np.log2(tries)) + 1


def test_what_was_dropped_was_tried():
    experiment = random_run(0, sequences=1)
    full = experiment.evaluations[experiment.evaluations["number"] == 0]
    late = replace(experiment, evaluations=pd.concat([full, full.assign(number=7, cost=1)]))
    curve = luck_curve(late, bootstrap=0)
    assert curve.loc[curve["allocations"] < 8, "per_sequence"].eq(1.0).all()
    assert curve.loc[curve["allocations"] == 8, "per_sequence"].tolist() == [0.25]


@pytest.mark.parametrize("seed", range(5))
def test_a_large_run_is_relaxed_before_its_last_point(monkeypatch, seed):
    experiment = random_run(seed, sequences=12, tries=40, layers=8)
    exact = luck_curve(experiment, bootstrap=0, permutations=2)
    monkeypatch.setattr(curve_module, "EXACT_LIMIT", 0)
    relaxed = luck_curve(experiment, bootstrap=0, permutations=2)
    for name in ("equal_quality", "null_equal_quality"):
        excess = relaxed[name] - exact[name]
        assert excess.between(-1e-12, 1 / 12).all()
        assert excess.iloc[-1] == pytest.approx(0, abs=1e-12)
        assert (relaxed[name].diff().iloc[1:] <= 1e-12).all()
    pd.testing.assert_series_equal(relaxed["per_sequence"], exact["per_sequence"])


@pytest.mark.parametrize(("sequences", "permutations"), [(1, 10), (4, 0)])
def test_no_null_where_the_summary_has_none(sequences, permutations):
    curve = luck_curve(random_run(3, sequences=sequences), bootstrap=0, permutations=permutations)
    assert curve[[*FALLING[2:], *ENDS]].isna().all(axis=None)
    assert curve[FALLING[:2]].notna().all(axis=None)


def test_likelihoods_are_read_against_the_one_that_is_stored():
    experiment = replace(random_run(4), kind="likelihood", score=None)
    last = luck_curve(experiment, bootstrap=0, permutations=10).iloc[-1]
    assert last["null_per_sequence"] == summarise(experiment, bootstrap=0).null_per_sequence_fraction


@pytest.mark.parametrize("prices", [(1, 1, 1, 1), (0.5, 1.25, 3.1, 0.7)])
@given(seed=st.integers(0, 10_000), tolerance=st.sampled_from([0.0, 0.2]))
@settings(max_examples=20, deadline=None)
def test_progress_is_that_of_a_slow_reading(prices, seed, tolerance):
    experiment = random_run(seed, tolerance=tolerance)
    rows = experiment.evaluations.sample(frac=1, random_state=seed, ignore_index=True)
    rows["cost"] = [sum(prices[:cost]) if cost <= 4 else 99.0 for cost in rows["cost"]]
    curve = progress_curve(replace(experiment, evaluations=rows, costs=Priced(sum(prices))))
    assert curve["evaluations"].tolist() == list(range(1, rows["number"].max() + 2))
    full = rows[rows["number"] == 0].set_index("sequence")["q"]
    for n, fraction, nonzero in curve.itertuples(index=False):
        least = {}
        for sequence in full.index:
            known = rows[(rows["sequence"] == sequence) & (rows["number"] < n)]
            least[sequence] = min(known["cost"][known["q"] >= full[sequence] - tolerance - 1e-12]) / sum(prices)
        assert fraction == pytest.approx(np.mean(list(least.values())))
        above = [value for sequence, value in least.items() if full[sequence] > 0]
        assert nonzero == pytest.approx(np.mean(above) if above else np.nan, nan_ok=True)


@dataclass
class Priced:
    """Costs of which nothing but the full model's is asked."""

    total: float


def test_progress_ends_where_the_luck_curve_does(experiment):
    progress = progress_curve(experiment).set_index("evaluations")["fraction"]
    luck = luck_curve(experiment, bootstrap=0, permutations=0).set_index("allocations")["per_sequence"]
    np.testing.assert_allclose(progress[luck.index], luck, atol=1e-12)
    assert progress.index[-1] == luck.index[-1] == 120
