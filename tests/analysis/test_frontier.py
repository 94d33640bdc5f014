"""The oracle against brute force, against an integer programme and against its own bounds."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import Bounds, LinearConstraint, milp

from analysis import InputError, assignment, equal_quality, oracle_frontier, quality_by_cost
from analysis import frontier as frontier_module


def items(seed, sequences, layers, missing=0.3, digits=2):
    """Random qualities, the full model always there; few digits make ties."""
    rng = np.random.default_rng(seed)
    quality_NK = np.round(rng.random((sequences, layers + 1)) + np.linspace(0, 0.5, layers + 1), digits)
    quality_NK[rng.random(quality_NK.shape) < missing] = -np.inf
    quality_NK[:, -1] = np.round(0.4 + 0.5 * rng.random(sequences), digits)
    return quality_NK


def brute_force(quality_NK):
    """Best total quality at each total cost, by trying all combinations."""
    best = {}
    for costs in product(*(np.flatnonzero(row > -np.inf).tolist() for row in quality_NK)):
        quality = sum(quality_NK[n, k] for n, k in enumerate(costs))
        best[sum(costs)] = max(best.get(sum(costs), -np.inf), quality)
    return best


def integer_programme(quality_NK, capacity):
    N, K = quality_NK.shape
    known = np.isfinite(quality_NK)
    result = milp(
        -np.where(known, quality_NK, 0.0).ravel(),
        constraints=[
            LinearConstraint(np.tile(np.arange(K), N)[None], ub=capacity),
            LinearConstraint(np.kron(np.eye(N), np.ones(K)), 1, 1),
        ],
        integrality=np.ones(N * K),
        bounds=Bounds(0, known.ravel().astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    assert result.success
    return -result.fun


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.integers(-3, 6)),
)
@settings(max_examples=150, deadline=None)
def test_exact_equals_brute_force_at_every_capacity(values_NK):
    quality_NK = np.where(values_NK < 0, -np.inf, values_NK / 4)
    quality_NK[:, -1] = np.maximum(values_NK[:, -1], 0) / 4
    N, K = quality_NK.shape
    best = brute_force(quality_NK)
    frontier = oracle_frontier(quality_NK, exact=True)
    for capacity in range(N * (K - 1) + 1):
        within = [quality for cost, quality in best.items() if cost <= capacity]
        fraction = capacity / (N * (K - 1))
        if not within:
            assert np.isnan(frontier.quality_at(np.array([fraction]))).all()
            continue
        costs = frontier.costs(fraction)
        assert costs.sum() <= capacity
        assert quality_NK[np.arange(N), costs].sum() == pytest.approx(max(within), abs=1e-12)
        assert frontier.quality_at(np.array([fraction]))[0] == pytest.approx(max(within) / N, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_equal_quality_equals_brute_force(seed):
    quality_NK = items(seed, sequences=5, layers=5)
    best = brute_force(quality_NK)
    target = quality_NK[:, -1].sum()
    least = min(cost for cost, quality in best.items() if quality >= target - 1e-9)
    found = equal_quality(quality_NK, quality_NK[:, -1], tolerance=0.0)
    assert found.costs.sum() == least
    assert found.fraction == pytest.approx(least / 25)
    assert found.quality == pytest.approx(best[least] / 5)
    assert found.frontier.exact


@pytest.mark.parametrize("seed", range(3))
def test_exact_equals_an_integer_programme(seed):
    quality_NK = items(seed, sequences=40, layers=16, digits=6)
    frontier = oracle_frontier(quality_NK)
    assert frontier.exact
    base = int((quality_NK > -np.inf).argmax(axis=1).sum())
    for capacity in (base, base + 7, base + 60, base + 200):
        costs = frontier.costs(capacity / (40 * 16))
        assert costs.sum() <= capacity
        chosen = quality_NK[np.arange(40), costs].sum()
        assert chosen == pytest.approx(integer_programme(quality_NK, capacity), abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_relaxation_is_feasible_and_within_its_gap(seed):
    quality_NK = items(seed, sequences=30, layers=12, digits=6)
    exact = oracle_frontier(quality_NK, exact=True)
    relaxed = oracle_frontier(quality_NK, exact=False)
    assert not relaxed.exact
    assert 0 < relaxed.gap <= 1.5 / 30
    grid = np.linspace(exact.fraction[0], 1, 300)
    difference = exact.quality_at(grid) - relaxed.quality_at(grid)
    assert difference.min() >= -1e-12
    assert difference.max() <= relaxed.gap
    # Its breakpoints are optimal at their own cost.
    np.testing.assert_allclose(exact.quality_at(relaxed.fraction), relaxed.quality, atol=1e-12)
    for fraction, quality in zip(relaxed.fraction, relaxed.quality, strict=True):
        costs = relaxed.costs(fraction)
        assert costs.mean() / 12 == pytest.approx(fraction)
        assert quality_NK[np.arange(30), costs].mean() == pytest.approx(quality)


@pytest.mark.parametrize("seed", range(4))
def test_the_relaxed_equal_quality_fraction_is_at_most_one_step_too_high(seed):
    quality_NK = items(seed, sequences=30, layers=12, digits=6)
    full_N = quality_NK[:, -1]
    exact = equal_quality(quality_NK, full_N, tolerance=0.0, exact=True)
    relaxed = equal_quality(quality_NK, full_N, tolerance=0.0, exact=False)
    assert exact.fraction <= relaxed.fraction <= exact.fraction + 1 / 30
    assert relaxed.quality >= full_N.mean() - 1e-9


def test_large_problems_are_relaxed_by_themselves(monkeypatch):
    quality_NK = items(0, sequences=20, layers=10)
    assert oracle_frontier(quality_NK).exact
    monkeypatch.setattr(frontier_module, "EXACT_LIMIT", 10)
    assert not oracle_frontier(quality_NK).exact


@pytest.mark.parametrize("exact", [True, False])
def test_frontier_rises_strictly_and_is_concave_when_relaxed(exact):
    frontier = oracle_frontier(items(3, sequences=25, layers=20, digits=6), exact=exact)
    assert (np.diff(frontier.fraction) > 0).all()
    assert (np.diff(frontier.quality) > 0).all()
    if not exact:
        slopes = np.diff(frontier.quality) / np.diff(frontier.fraction)
        assert (np.diff(slopes) <= 1e-9).all()


def test_more_tolerance_never_needs_more_layers():
    quality_NK = items(1, sequences=25, layers=20)
    fractions = [
        equal_quality(quality_NK, quality_NK[:, -1], tolerance=tolerance).fraction
        for tolerance in np.linspace(0, 0.5, 11)
    ]
    assert (np.diff(fractions) <= 0).all()
    assert fractions[-1] < fractions[0]


def test_more_allocations_never_need_more_layers():
    quality_NK = items(2, sequences=25, layers=20)
    fewer = quality_NK.copy()
    fewer[::2, 1:-1:2] = -np.inf
    full_N = quality_NK[:, -1]
    more_needed = equal_quality(fewer, full_N, tolerance=0.0).fraction
    assert equal_quality(quality_NK, full_N, tolerance=0.0).fraction <= more_needed


def test_ties_leave_the_last_sequences_the_fewest_layers():
    quality_NK = np.array([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    found = equal_quality(quality_NK, np.full(3, 1 / 3), tolerance=0.0)
    assert found.costs.tolist() == [1, 1, 0]


def test_sums_that_differ_by_rounding_only_are_equal():
    quality_NK = np.array([[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]])
    assert 0.3 + 0.2 + 0.1 < 0.1 + 0.2 + 0.3, "the case needs sums that depend on their order"
    for exact in (True, False):
        assert equal_quality(quality_NK, quality_NK[:, 1], tolerance=0.0, exact=exact).fraction == 0.0


def test_too_small_a_budget_is_refused():
    frontier = oracle_frontier(np.array([[-np.inf, 0.5, 0.7]]))
    with pytest.raises(InputError, match=r"at least 0\.5000"):
        frontier.costs(0.4)


def test_quality_by_cost_and_the_assignment_table():
    table = pd.DataFrame(
        {
            "sequence": ["b"] * 4 + ["a"] * 3,
            "number": [0, 1, 2, 3, 0, 1, 2],
            "allocation": [[0, 1], [0], [1], [0, 0, 1], [0, 1], [], [1]],
            "cost": [2, 1, 1, 3, 2, 0, 1],
            "q": [0.5, 0.6, 0.6, 9.0, 0.5, 0.1, 0.4],
        }
    )
    quality_NK, number_NK = quality_by_cost(table, 2, "q")
    assert quality_NK.tolist() == [[-np.inf, 0.6, 0.5], [0.1, 0.4, 0.5]]
    assert number_NK.tolist() == [[-1, 1, 0], [1, 2, 0]]
    found = equal_quality(quality_NK, np.array([0.5, 0.5]), tolerance=0.0)
    chosen = assignment(table, number_NK, found.costs, "q")
    assert chosen["sequence"].tolist() == ["b", "a"]
    assert chosen["number"].tolist() == [1, 2]
    assert chosen["allocation"].tolist() == [[0], [1]]
    assert chosen["cost"].tolist() == [1, 1]
    assert chosen["quality"].tolist() == [0.6, 0.4]
    assert found.fraction == 0.5
