"""Bootstrap intervals: seeded, of the right width, and the relaxation next to the exact oracle."""

from itertools import product

import numpy as np
import pytest
from knapsacks import of_layers

import analysis.stats
from analysis.knapsack.frontier import equal_quality
from analysis.knapsack.relaxation import envelope
from analysis.stats import _relaxed_cost, equal_quality_interval, intervals, mean_interval


def items(seed, sequences, layers):
    rng = np.random.default_rng(seed)
    quality_NC = rng.random((sequences, layers + 1)) * np.linspace(0.3, 1, layers + 1)
    quality_NC[rng.random(quality_NC.shape) < 0.3] = -np.inf
    quality_NC[:, -1] = 0.5 * rng.random(sequences)
    return of_layers(quality_NC)


def test_mean_interval_has_the_textbook_width():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(values, resamples=2000, seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.1)


def test_intervals_are_quantiles_of_all_resamples():
    """Five values have 3,125 resamples with replacement: each is drawn as often as any other."""
    values = np.array([0.1, 0.15, 0.4, 0.75, 0.95])
    every = np.array(list(product(values, repeat=5)))

    def statistics(samples, axis=-1):
        return np.stack([samples.mean(axis=axis), np.median(samples, axis=axis)])

    low, high = intervals(values, statistics, resamples=40_000, seed=0)
    for i, each in enumerate(statistics(every)):
        expected = np.quantile(each, [0.025, 0.975], method="inverted_cdf")
        assert [low[i], high[i]] == pytest.approx(expected, abs=0.012)
    assert mean_interval(values, resamples=40_000, seed=0) == (low[0], high[0])


@pytest.mark.parametrize("resample", [0, 1])
def test_seeds_decide(resample):
    found = items(0, 24, 30)
    full_N = found.quality_NC[:, -1]

    def intervals(seed):
        given = {"resamples": 200, "seed": seed}
        return (
            mean_interval(full_N, **given),
            equal_quality_interval(found, full_N, tolerance=0.0, **given),
        )

    assert intervals(5)[resample] == intervals(5)[resample]
    assert intervals(5)[resample] != intervals(6)[resample]


def test_one_sequence_or_no_resamples_give_no_interval():
    assert mean_interval(np.array([1.0]), resamples=100, seed=0) is None
    assert mean_interval(np.array([1.0, 2.0]), resamples=0, seed=0) is None
    for rows, resamples in ((1, 100), (3, 0)):
        few = items(0, rows, 4)
        given = {"tolerance": 0.0, "resamples": resamples, "seed": 0}
        assert equal_quality_interval(few, few.quality_NC[:, -1], **given) is None


def test_equal_values_give_a_point():
    assert mean_interval(np.full(5, 0.25), resamples=100, seed=0) == (0.25, 0.25)
    quality_NC = np.tile([-np.inf, 0.2, 0.8, 0.5], (6, 1))
    given = {"tolerance": 0.0, "resamples": 50, "seed": 0}
    low, high = equal_quality_interval(of_layers(quality_NC), quality_NC[:, -1], **given)
    # Half of the way from 0.2 at one layer to 0.8 at two.
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


def test_nothing_to_buy_costs_the_base():
    quality_NC = np.array([[0.5, 0.5], [-np.inf, 0.25], [0.75, 0.5]])
    full_N = quality_NC[:, -1]
    hull = envelope(of_layers(quality_NC))
    assert _relaxed_cost(hull, full_N, np.array([[1, 1, 1], [0, 3, 0]])).tolist() == [1.0, 3.0]


@pytest.mark.parametrize("seed", range(10))
def test_relaxed_cost_is_at_most_one_item_below_the_exact_one(seed):
    some = items(seed, 20, 12)
    full_N = some.quality_NC[:, -1]
    rng = np.random.default_rng(seed)
    times_N = rng.multinomial(20, np.full(20, 1 / 20))
    repeated = of_layers(np.repeat(some.quality_NC, times_N, axis=0))
    exact = equal_quality(repeated, np.repeat(full_N, times_N), tolerance=0.01, exact=True).costs.sum()
    hull = envelope(some)
    [relaxed] = _relaxed_cost(hull, full_N - 0.01, times_N[None])
    assert exact - hull.cost.max() <= relaxed <= exact + 1e-6


def test_the_interval_holds_the_exact_fraction():
    some = items(1, 24, 30)
    full_N = some.quality_NC[:, -1]
    low, high = equal_quality_interval(some, full_N, tolerance=0.0, resamples=1000, seed=0)
    assert 0 <= low < equal_quality(some, full_N, tolerance=0.0).fraction < high <= 1


def test_chunks_do_not_change_the_result(monkeypatch):
    some = items(2, 24, 30)
    full_N = some.quality_NC[:, -1]
    given = {"tolerance": 0.0, "resamples": 100, "seed": 3}
    whole = equal_quality_interval(some, full_N, **given)
    monkeypatch.setattr(analysis.stats, "CHUNK", 500)
    assert equal_quality_interval(some, full_N, **given) == whole
