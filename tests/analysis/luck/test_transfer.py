"""Chosen by one judge, reported by another: against enumeration of everything that could have been chosen."""

from itertools import product

import numpy as np
import pytest
from tables import judged

from analysis import load, metric_transfer, reference_transfer

METRICS = ("rouge1", "rouge2", "rougeL", "bleu", "chrf", "exact_match", "agreement", "log_likelihood")


def minimal(quality, cost, full, tolerance):
    """Of one sequence: the cheapest that meets the criterion, of these the best."""
    meets = [k for k in range(len(cost)) if quality[k] >= full - tolerance - 1e-12]
    return min(meets, key=lambda k: (cost[k], -quality[k], k))


def oracle(quality_NK, cost_NK, full_N, tolerance):
    """Of all choices that reach the mean the cheapest, of these the best."""
    N, K = cost_NK.shape
    best = None
    for choice in product(range(K), repeat=N):
        cost = sum(cost_NK[n, k] for n, k in enumerate(choice))
        quality = sum(quality_NK[n, k] for n, k in enumerate(choice))
        if quality / N >= np.mean(full_N) - tolerance - 1e-9 and (best is None or (cost, -quality) < best[0]):
            best = ((cost, -quality), choice)
    return best[1]


@pytest.fixture(scope="module")
def table(stored_run):
    return metric_transfer(stored_run, bootstrap=100)


def values(experiment, metric):
    """Qualities and costs (N K), the full model first."""
    rows = experiment.evaluations.sort_values(["sequence", "number"])
    count = len(experiment.sequences)
    return rows[metric].to_numpy(float).reshape(count, -1), rows["cost"].to_numpy().reshape(count, -1)


@pytest.mark.parametrize("chosen_by", METRICS)
def test_every_metric_chooses_and_reports(stored_run, table, chosen_by):
    experiment = load(stored_run)
    quality_NK, cost_NK = values(experiment, chosen_by)
    tolerance = experiment.tolerance if chosen_by == "rougeL" else 0.0
    full_N = quality_NK[:, 0]
    choices = {
        "minimal": [minimal(*row, tolerance) for row in zip(quality_NK, cost_NK, full_N, strict=True)],
        "equal_quality": oracle(quality_NK, cost_NK, full_N, tolerance),
    }
    mine = table[table["chosen_by"] == chosen_by].set_index(["policy", "reported_in"])
    for policy, choice in choices.items():
        assert set(mine.loc[policy].index) == set(METRICS)
        for reported_in in METRICS:
            other_NK, _ = values(experiment, reported_in)
            got = [other_NK[n, k] for n, k in enumerate(choice)]
            row = mine.loc[policy, reported_in]
            assert row["sequences"] == 3
            assert row["fraction"] == pytest.approx(np.mean([cost_NK[n, k] for n, k in enumerate(choice)]) / 3)
            assert row["quality"] == pytest.approx(np.mean(got))
            assert row["full"] == pytest.approx(other_NK[:, 0].mean())
            assert row["difference"] == pytest.approx(np.mean(got - other_NK[:, 0]))
            assert row["low"] <= row["difference"] + 1e-12
            assert row["high"] >= row["difference"] - 1e-12


def test_by_its_own_metric_no_choice_is_worse(table):
    own = table[table["chosen_by"] == table["reported_in"]].set_index("chosen_by")
    assert (own.drop("rougeL")["difference"] >= -1e-9).all()
    assert (own.loc["rougeL", "difference"] >= -0.05 - 1e-9).all()


def test_a_folder_and_its_experiment_give_the_same(stored_run, table):
    assert metric_transfer(load(stored_run), bootstrap=100).equals(table)
    assert metric_transfer(stored_run, bootstrap=0)["low"].isna().all()


def test_one_reference_chooses_and_the_other_reports():
    seen_NKR = np.random.default_rng(5).random((3, 4, 2))
    experiment = judged(seen_NKR)
    table = reference_transfer(experiment, bootstrap=50).set_index(["policy", "reported_by"])
    found = {policy: [] for policy in ("minimal", "equal_quality")}
    for chooser in (0, 1):
        quality_NK, reported_NK = seen_NKR[..., chooser], seen_NKR[..., 1 - chooser]
        cost_NK = np.tile(np.arange(4), (3, 1))
        full_N = quality_NK[:, -1]
        for policy, choice in (
            ("minimal", [minimal(*row, 0.0) for row in zip(quality_NK, cost_NK, full_N, strict=True)]),
            ("equal_quality", oracle(quality_NK, cost_NK, full_N, 0.0)),
        ):
            row, place = np.arange(3), np.array(choice)
            found[policy].append((place, quality_NK[row, place], reported_NK[row, place]))
    for policy, results in found.items():
        cost, chosen, reported = (np.mean(part) for part in zip(*results, strict=True))
        for half, quality in (("chooser", chosen), ("held_out", reported)):
            line = table.loc[policy, half]
            assert line["fraction"] == pytest.approx(cost / 3)
            assert line["quality"] == pytest.approx(quality)
            assert line["full"] == pytest.approx(seen_NKR[:, -1].mean())
            assert line["difference"] == pytest.approx(quality - seen_NKR[:, -1].mean())
            assert line["low"] <= line["high"]


def test_without_second_references_nothing_is_held_out(experiment):
    assert reference_transfer(experiment) is None
