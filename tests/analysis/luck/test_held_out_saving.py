"""The luck-adjusted saving: against linear programs, against a known truth, and where there is no luck at all."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from benchmarks.luck import WORLDS, biases, in_halves, simulated
from scipy.optimize import linprog
from tables import judged

from analysis import InputError, luck_adjusted
from analysis.luck.held_out import halves, held_out


def noisy(count: int, noise: float, seed: int = 0, *, real: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """True qualities that rise with cost but for real differences (N K), and as two references see them (N K 2)."""
    rng = np.random.default_rng(seed)
    share_K = np.linspace(0, 1, 11)
    hard_N1 = rng.uniform(0.3, 0.9, (count, 1))
    truth_NK = 0.3 + 0.4 / (1 + np.exp(-(share_K - hard_N1) / 0.1)) + rng.normal(0, real, (count, 11))
    return truth_NK, truth_NK[..., None] + rng.normal(0, noise, (count, 11, 2))


@pytest.mark.parametrize("splits", [0, 1, 5])
def test_each_half_has_its_turn(splits):
    with pytest.raises(InputError, match=f"an even number of splits is required, got {splits}"):
        held_out(judged(noisy(4, 0.1)[1]), splits=splits)


def test_the_apparent_fraction_is_the_linear_program_over_all_halves():
    _, seen_NKR = noisy(12, 0.1)
    found = luck_adjusted(judged(seen_NKR), bootstrap=0)
    # Each sequence stands twice, once for each of its references that chooses.
    quality = np.concatenate([seen_NKR[..., 0], seen_NKR[..., 1]])
    rows, columns = quality.shape
    cost = np.tile(np.arange(columns) / (columns - 1), rows) / rows
    one_each = np.kron(np.eye(rows), np.ones(columns))
    least = linprog(cost, A_ub=-quality.reshape(1, -1), b_ub=[-quality[:, -1].sum()], A_eq=one_each, b_eq=np.ones(rows))
    assert found.apparent == pytest.approx(least.fun, abs=2e-3)
    assert found.interval is found.share_interval is None
    minimal = (quality >= quality[:, -1:]).argmax(axis=1) / (columns - 1)
    assert found.minimal == pytest.approx(minimal.mean())
    other = np.concatenate([seen_NKR[..., 1], seen_NKR[..., 0]])
    place = (quality >= quality[:, -1:]).argmax(axis=1)
    holds = other[np.arange(rows), place] >= other[:, -1]
    assert found.confirmed_share == pytest.approx(holds.mean())
    assert found.confirmed == pytest.approx(np.where(holds, minimal, 1).mean())


def test_references_that_did_not_choose_tell_the_truth():
    truth_NK, seen_NKR = noisy(1500, 0.15, real=0.1)
    found = luck_adjusted(judged(seen_NKR), bootstrap=200)
    # The true quality of the choices made by the first reference, which no reference contains.
    share_K, row_N = np.linspace(0, 1, 11), np.arange(len(truth_NK))
    choices = ((seen_NKR[..., 0] - price * share_K).argmax(axis=1) for price in np.geomspace(100, 1e-3, 2000))
    enough = (chosen_N for chosen_N in choices if truth_NK[row_N, chosen_N].mean() >= truth_NK[:, -1].mean())
    real = share_K[next(enough)].mean()
    assert found.fraction == pytest.approx(real, abs=0.03)
    assert found.apparent < real - 0.1
    assert found.share_of_luck == pytest.approx((real - found.apparent) / (1 - found.apparent), abs=0.05)
    assert found.interval[0] <= found.fraction <= found.interval[1]
    assert found.share_interval[0] > 0.05
    assert found.confirmed > found.minimal


def test_where_the_full_model_is_truly_best_no_choice_is_as_good():
    truth_NK, seen_NKR = noisy(300, 0.15, real=0.0)
    found = luck_adjusted(judged(seen_NKR), bootstrap=0)
    assert (truth_NK.argmax(axis=1) == 10).all()
    assert found.apparent < 0.6
    assert (found.fraction, found.share_of_luck) == (1, 1)


def test_a_second_reference_that_says_the_same_finds_no_luck():
    _, seen_NKR = noisy(20, 0.1)
    found = luck_adjusted(judged(np.repeat(seen_NKR[..., :1], 2, axis=2)), bootstrap=50)
    assert found.fraction == found.apparent
    assert (found.share_of_luck, found.confirmed_share) == (0, 1)
    assert found.confirmed == pytest.approx(found.minimal)
    assert found.share_interval == (0, 0)


def test_where_only_the_full_model_will_do_nothing_is_saved():
    """The other half loves the full model above all, and whatever is chosen by this one."""
    seen_NKR = np.zeros((6, 3, 2))
    seen_NKR[:, 0, 0] = seen_NKR[:, 1, 1] = 0.9
    seen_NKR[:, 2] = 0.5
    found = luck_adjusted(judged(seen_NKR), bootstrap=20)
    assert found.apparent < 0.5
    assert found.fraction == 1
    assert found.share_of_luck == pytest.approx(1)
    assert found.confirmed == pytest.approx(1)


def test_the_tolerance_counts_for_both_halves():
    _, seen_NKR = noisy(60, 0.1)
    strict, lenient = (luck_adjusted(judged(seen_NKR, tolerance=t), bootstrap=0) for t in (0.0, 0.1))
    assert lenient.fraction < strict.fraction
    assert lenient.apparent < strict.apparent


def test_sequences_with_one_reference_are_left_out(run_maker):
    _, seen_NKR = noisy(10, 0.1)
    experiment = judged(seen_NKR)
    cut = experiment.sequences["references"].map(list)
    cut.iloc[:4] = [references[:1] for references in cut.iloc[:4]]
    fewer = judged(seen_NKR[4:])
    experiment.sequences["references"] = cut
    found, expected = luck_adjusted(experiment, bootstrap=30), luck_adjusted(fewer, bootstrap=30)
    assert (found.sequences, found.left_out, expected.left_out) == (6, 4, 0)
    assert found.fraction == pytest.approx(expected.fraction)
    # The synthetic run has one reference a sequence.
    assert luck_adjusted(run_maker(sequences=4)) is None


def test_only_texts_can_be_held_out(run_maker):
    _, seen_NKR = noisy(4, 0.1)
    experiment = judged(seen_NKR)
    assert held_out(experiment) is not None
    assert held_out(replace(experiment, kind="tokens")) is None


def test_the_order_of_rows_makes_no_difference():
    _, seen_NKR = noisy(8, 0.2)
    experiment = judged(np.concatenate([seen_NKR, seen_NKR[..., ::-1] * 0.9], axis=2))
    mixed = experiment.evaluations.sample(frac=1, random_state=1).reset_index(drop=True)
    again = replace(experiment, evaluations=mixed)
    assert luck_adjusted(experiment, bootstrap=0) == luck_adjusted(experiment, bootstrap=0)
    one, other = (luck_adjusted(each, bootstrap=0) for each in (experiment, again))
    assert one.fraction == pytest.approx(other.fraction, abs=1e-12)
    assert one.confirmed == pytest.approx(other.confirmed, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_halves_take_turns(count):
    pairs = halves(count, 12, np.random.default_rng(3))
    assert len(pairs) == 12
    assert all(sorted((*one, *other)) == list(range(count)) for one, other in pairs)
    assert {len(one) for one, _ in pairs} == {count // 2, -(-count // 2)}
    assert pairs[::2] == [(other, one) for one, other in pairs[1::2]]
    often = pd.Series([one for one, _ in pairs]).value_counts()
    assert often.nunique() == 1


@pytest.mark.parametrize("references", [2, 4])
def test_the_simulated_estimator_is_the_one_of_the_package(references):
    for world in WORLDS.values():
        _, seen_NKR = simulated(np.random.default_rng(5), 12, references, **world)
        found = luck_adjusted(judged(seen_NKR), bootstrap=0)
        assert in_halves(seen_NKR) == pytest.approx(found.fraction, abs=1e-9)


def test_the_bias_is_as_documented():
    """Far from 1 it is small; near 1 the saving is overstated, most where layers hardly matter."""
    names = ("halves", "halves, last crossing", "nested halves", "leave one out")
    found = {
        name: biases(24, 4, WORLDS[name], replicates=25, seed=3, names=names)
        for name in ("60 % needed", "nearly all needed", "all, hardly a rise")
    }
    few, most, flat = (each["bias"] for each in found.values())
    assert found["60 % needed"]["truth"] < 0.7 < 0.9 < found["nearly all needed"]["truth"]
    assert abs(few["halves"]) < 0.03
    assert -0.1 < most["halves"] < -0.01
    assert -0.45 < flat["halves"] < -0.1
    # None of the others is better everywhere.
    assert few["nested halves"] > 0.03 > abs(few["halves"])
    assert flat["nested halves"] < -0.1
    assert most["leave one out"] < most["halves"]
    assert flat["halves"] < flat["halves, last crossing"] < -0.05
    noisy = biases(24, 2, WORLDS["a third, noisy"], replicates=25, seed=3, names=names)["bias"]
    assert noisy["halves, last crossing"] > noisy["halves"] + 0.03
