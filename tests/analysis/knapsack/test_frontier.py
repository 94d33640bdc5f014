"""The oracle against brute force, against an integer programme and against its own bounds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from knapsacks import brute_force, integer_programme, layered, of_layers, uneven

from analysis import InputError
from analysis.knapsack import dynamic_program as knapsack_module
from analysis.knapsack import exact as core_module
from analysis.knapsack import frontier as frontier_module
from analysis.knapsack import items as items_module
from analysis.knapsack.assignment import assignment
from analysis.knapsack.frontier import equal_quality, oracle_at, oracle_frontier
from analysis.knapsack.items import quality_by_cost
from analysis.knapsack.relaxation import envelope, solve_relaxed


def fulls(items):
    """Quality of the full model: of the last column."""
    return items.quality_NC[:, -1]


def at_cost(items, costs):
    """Total quality of a choice of costs."""
    return np.where(items.cost_NC == costs[:, None], items.quality_NC, -np.inf).max(axis=1).sum()


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.integers(-3, 6)),
)
@settings(max_examples=150, deadline=None)
def test_exact_equals_brute_force_at_every_capacity(values_NK):
    quality_NC = np.where(values_NK < 0, -np.inf, values_NK / 4)
    quality_NC[:, -1] = np.maximum(values_NK[:, -1], 0) / 4
    N, K = quality_NC.shape
    items = of_layers(quality_NC)
    best = brute_force(items)
    frontier = oracle_frontier(items, exact=True)
    for capacity in range(N * (K - 1) + 1):
        within = [quality for cost, quality in best.items() if cost <= capacity]
        fraction = capacity / (N * (K - 1))
        if not within:
            assert np.isnan(frontier.quality_at(np.array([fraction]))).all()
            continue
        costs = frontier.costs(fraction)
        assert costs.sum() <= capacity
        assert at_cost(items, costs) == pytest.approx(max(within), abs=1e-12)
        assert frontier.quality_at(np.array([fraction]))[0] == pytest.approx(max(within) / N, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [layered, uneven])
def test_equal_quality_equals_brute_force(seed, make):
    items = make(seed, 5, 5)
    best = brute_force(items)
    target = fulls(items).sum()
    least = min(cost for cost, quality in best.items() if quality >= target - 1e-9)
    found = equal_quality(items, fulls(items), tolerance=0.0)
    assert found.costs.sum() == pytest.approx(least)
    assert found.fraction == pytest.approx(least / (5 * items.full_cost))
    assert found.quality == pytest.approx(best[least] / 5)
    assert found.gap == 0
    assert found.frontier.exact == (make is layered)


@pytest.mark.parametrize("seed", range(3))
def test_exact_equals_an_integer_programme(seed):
    items = layered(seed, sequences=40, layers=16, digits=6)
    frontier = oracle_frontier(items)
    assert frontier.exact
    base = int((items.quality_NC > -np.inf).argmax(axis=1).sum())
    for capacity in (base, base + 7, base + 60, base + 200):
        costs = frontier.costs(capacity / (40 * 16))
        assert costs.sum() <= capacity
        assert at_cost(items, costs) == pytest.approx(integer_programme(items, cost=capacity), abs=1e-7)


@pytest.mark.parametrize("kinds", [None, 2])
@pytest.mark.parametrize("digits", [6, 1])
def test_a_point_is_exact_for_costs_of_any_kind(digits, kinds):
    items = uneven(digits, 40, 12, digits=digits, kinds=kinds)
    target = fulls(items).sum() - 40 * 0.05
    found = equal_quality(items, fulls(items), tolerance=0.05)
    assert not found.frontier.exact
    assert found.gap == 0
    assert found.costs.sum() == pytest.approx(integer_programme(items, quality=target), rel=1e-6)
    assert at_cost(items, found.costs) / 40 == pytest.approx(found.quality)
    for fraction in (0.3, 0.45, 0.6):
        costs = found.frontier.costs(fraction)
        assert costs.sum() <= fraction * 40 * 80 + 1e-5
        best = integer_programme(items, cost=fraction * 40 * 80)
        assert at_cost(items, costs) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [layered, uneven])
def test_a_single_budget_equals_an_integer_programme(seed, make):
    items = make(seed, 40, 12, digits=6)
    for fraction in (0.35, 0.5, 0.62):
        found = oracle_at(items, fraction)
        assert found.gap == 0
        assert found.costs.sum() / (40 * items.full_cost) == pytest.approx(found.fraction)
        assert found.fraction <= fraction + 1e-9
        best = integer_programme(items, cost=fraction * 40 * items.full_cost)
        assert at_cost(items, found.costs) == pytest.approx(best, abs=1e-5)
        assert found.quality == pytest.approx(best / 40, abs=1e-6)
        assert found.quality == pytest.approx(oracle_frontier(items).at(fraction).quality, abs=1e-12)


@pytest.mark.parametrize("limit", ["STATES", "EFFORT"])
def test_a_single_budget_that_stays_open_is_solved_in_steps_or_says_so(monkeypatch, limit):
    items = layered(1, 40, 12, digits=6)
    best = [oracle_frontier(items, exact=True).at(fraction).quality for fraction in (0.3, 0.31, 0.4, 0.41)]
    monkeypatch.setattr(core_module, limit, 1)
    assert [oracle_at(items, fraction).quality for fraction in (0.3, 0.31, 0.4, 0.41)] == pytest.approx(best, abs=1e-12)
    monkeypatch.setattr(frontier_module, "EXACT_LIMIT", 0)
    found = [oracle_at(items, fraction) for fraction in (0.3, 0.31, 0.4, 0.41)]
    assert max(point.gap for point in found) > 0
    for point, quality in zip(found, best, strict=True):
        assert point.quality - 1e-12 <= quality <= point.quality + point.gap + 1e-12


@pytest.mark.parametrize("make", [layered, uneven])
def test_the_relaxation_is_a_linear_programme(make):
    """Against HiGHS without integrality; pieces that are wrapped apart make no difference."""
    items = make(5, 30, 14, digits=6)
    bound = solve_relaxed(envelope(items))
    for cost in np.linspace(bound.cost[0], bound.cost[-1], 9)[1:]:
        best = integer_programme(items, cost=cost, integral=False)
        assert np.interp(cost, bound.cost, bound.quality) == pytest.approx(best, abs=3e-6)


@pytest.mark.parametrize("digits", [6, 1])
def test_pieces_make_no_difference(monkeypatch, digits):
    items = layered(7, 50, 14, digits=digits)
    whole = envelope(items)
    at_once = [oracle_at(items, fraction).costs.tolist() for fraction in (0.2, 0.3, 0.4)]
    monkeypatch.setattr(items_module, "PIECE", 60)
    pieces = envelope(items)
    for name in ("base", "base_cost", "base_quality", "sequence", "end", "cost", "gain", "slope"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    assert [oracle_at(items, fraction).costs.tolist() for fraction in (0.2, 0.3, 0.4)] == at_once


@pytest.mark.parametrize("kept", [1, 3, 100])
def test_choices_do_not_depend_on_which_totals_are_kept(monkeypatch, kept):
    items = layered(8, 30, 10, digits=1)
    before = [oracle_frontier(items).costs(fraction).tolist() for fraction in (0.2, 0.35, 0.5)]
    monkeypatch.setattr(knapsack_module, "KEPT", kept)
    assert [oracle_frontier(items).costs(fraction).tolist() for fraction in (0.2, 0.35, 0.5)] == before


@pytest.mark.parametrize("limit", ["STATES", "EFFORT"])
def test_a_search_that_is_given_up_says_by_how_much_it_may_be_off(monkeypatch, limit):
    items = uneven(3, 40, 12)
    full_N = fulls(items) + 0.1
    best = equal_quality(items, full_N, tolerance=0.0)
    monkeypatch.setattr(core_module, limit, 2)
    found = equal_quality(items, full_N, tolerance=0.0)
    assert found.gap > 0
    assert best.fraction < found.fraction <= best.fraction + found.gap
    assert found.quality >= full_N.mean() - 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["relaxed", "rounded"])
def test_an_inexact_frontier_is_feasible_and_no_further_off_than_it_says(seed, kind, monkeypatch):
    monkeypatch.setattr(frontier_module, "STEPS", (20, 50))
    items = layered(seed, sequences=30, layers=12, digits=6)
    exact = oracle_frontier(items, exact=True)
    found = oracle_frontier(replace(items, step=None), exact=False if kind == "relaxed" else None)
    assert not found.exact
    assert 0 < found.shift <= (1 / 30 if kind == "relaxed" else 1 / 20)
    grid = np.linspace(exact.fraction[0], 1, 300)
    assert (exact.quality_at(grid) >= found.quality_at(grid) - 1e-12)[~np.isnan(found.quality_at(grid))].all()
    assert (found.quality_at(grid + found.shift) >= exact.quality_at(grid) - 1e-12).all()
    assert exact.gap == 0 < found.gap < 0.05
    lost = exact.quality_at(grid) - found.quality_at(grid)
    assert np.nanmax(lost) <= found.gap + 1e-12
    assert kind == "rounded" or np.nanmax(lost) > 0
    if kind == "relaxed":
        # The breakpoints of the relaxation are optimal at their own cost.
        bound = solve_relaxed(envelope(items))
        np.testing.assert_allclose(exact.quality_at(bound.cost / (30 * 12)), bound.quality / 30, atol=1e-12)
        assert len(found.fraction) > len(bound.cost)
    for index, (fraction, quality) in enumerate(zip(found.fraction, found.quality, strict=True)):
        choice_N = found.solution.choose(index)
        assert items.costs(choice_N).mean() / 12 == pytest.approx(fraction)
        assert items.qualities(choice_N).mean() == pytest.approx(quality)


@pytest.mark.parametrize("seed", range(4))
def test_the_point_of_a_relaxed_frontier_is_the_exact_one(seed):
    items = layered(seed, sequences=30, layers=12, digits=6)
    exact = equal_quality(items, fulls(items), tolerance=0.0, exact=True)
    relaxed = equal_quality(items, fulls(items), tolerance=0.0, exact=False)
    assert (relaxed.fraction, relaxed.quality) == pytest.approx((exact.fraction, exact.quality), abs=1e-12)
    assert not relaxed.frontier.exact


def test_large_problems_are_relaxed_by_themselves(monkeypatch):
    items = layered(0, sequences=20, layers=10)
    assert oracle_frontier(items).exact
    monkeypatch.setattr(frontier_module, "EXACT_LIMIT", 10)
    assert not oracle_frontier(items).exact
    monkeypatch.setattr(frontier_module, "ROUNDED_LIMIT", 10)
    relaxed = oracle_frontier(items)
    assert relaxed.fraction.tolist() == oracle_frontier(items, exact=False).fraction.tolist()


@pytest.mark.parametrize("exact", [True, False])
def test_frontier_rises_strictly(exact):
    frontier = oracle_frontier(layered(3, sequences=25, layers=20, digits=6), exact=exact)
    assert (np.diff(frontier.fraction) > 0).all()
    assert (np.diff(frontier.quality) > 0).all()


def test_the_relaxation_is_concave():
    bound = solve_relaxed(envelope(layered(3, sequences=25, layers=20, digits=6)))
    slopes = np.diff(bound.quality) / np.diff(bound.cost)
    assert (np.diff(slopes) <= 1e-9).all()


def test_between_the_breakpoints_of_many_sequences_little_is_lost():
    items = layered(1, 1500, 16, digits=6)
    hull = envelope(items)
    filled = oracle_frontier(items, exact=False)
    mean, alone = filled.quality[-1], hull.gain.max() / 1500
    assert 0 < filled.gap / mean < 1e-5 < 20e-5 < alone / mean
    exact = oracle_frontier(items, exact=True)
    grid = np.arange(hull.base_cost.sum(), items.full_cost * 1500) / (1500 * items.full_cost)
    lost = exact.quality_at(grid) - filled.quality_at(grid)
    assert lost.min() >= -1e-12
    assert lost.max() <= filled.gap + 1e-12


def test_a_cost_in_steps_is_solved_as_layers_are():
    """FLOPs of a uniform model: so much for every token, so much for each layer."""
    items = layered(4, sequences=25, layers=20)
    flops = replace(items, cost_NC=1e8 + 7e6 * items.cost_NC, full_cost=1e8 + 20 * 7e6, step=7e6)
    layers, found = (equal_quality(each, fulls(items), tolerance=0.0) for each in (items, flops))
    assert found.frontier.exact
    assert found.costs.tolist() == (1e8 + 7e6 * layers.costs).tolist()
    np.testing.assert_allclose(found.frontier.fraction, (1e8 + 7e6 * 20 * layers.frontier.fraction) / 2.4e8)


def test_more_tolerance_never_needs_more_layers():
    items = layered(1, sequences=25, layers=20)
    fractions = [
        equal_quality(items, fulls(items), tolerance=tolerance).fraction for tolerance in np.linspace(0, 0.5, 11)
    ]
    assert (np.diff(fractions) <= 0).all()
    assert fractions[-1] < fractions[0]


def test_more_allocations_never_need_more_layers():
    items = layered(2, sequences=25, layers=20)
    fewer = items.quality_NC.copy()
    fewer[::2, 1:-1:2] = -np.inf
    more_needed = equal_quality(of_layers(fewer), fulls(items), tolerance=0.0).fraction
    assert equal_quality(items, fulls(items), tolerance=0.0).fraction <= more_needed


def test_ties_leave_the_last_sequences_the_fewest_layers():
    items = of_layers(np.array([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]))
    found = equal_quality(items, np.full(3, 1 / 3), tolerance=0.0)
    assert found.costs.tolist() == [1, 1, 0]


def test_sums_that_differ_by_rounding_only_are_equal():
    items = of_layers(np.array([[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]]))
    assert 0.3 + 0.2 + 0.1 < 0.1 + 0.2 + 0.3, "the case needs sums that depend on their order"
    for exact in (True, False):
        assert equal_quality(items, fulls(items), tolerance=0.0, exact=exact).fraction == 0.0


def test_too_small_a_budget_is_refused():
    frontier = oracle_frontier(of_layers(np.array([[-np.inf, 0.5, 0.7]])))
    for refused in (frontier.costs, lambda fraction: oracle_at(frontier.items, fraction)):
        with pytest.raises(InputError, match=r"at least 0\.5000"):
            refused(0.4)


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
    for price in (1, 0.7):
        priced = table.assign(cost=price * table["cost"])
        items, number_NK = quality_by_cost(priced, 2 * price, "q")
        assert items.cost_NC.tolist() == [[price, 2 * price, 2 * price], [0, price, 2 * price]]
        assert items.quality_NC.tolist() == [[0.6, 0.5, -np.inf], [0.1, 0.4, 0.5]]
        assert number_NK.tolist() == [[1, 0, -1], [1, 2, 0]]
        assert items.step == (1 if price == 1 else None)
        found = equal_quality(items, np.array([0.5, 0.5]), tolerance=0.0)
        chosen = assignment(priced, number_NK, found.costs, "q")
        assert chosen["sequence"].tolist() == ["b", "a"]
        assert chosen["number"].tolist() == [1, 2]
        assert chosen["allocation"].tolist() == [[0], [1]]
        assert chosen["cost"].tolist() == [price, price]
        assert chosen["quality"].tolist() == [0.6, 0.4]
        assert found.fraction == 0.5


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2)), max_size=30),
    price=st.sampled_from([1, 0.3]),
    sparse=st.sampled_from([0, 4]),
)
@settings(max_examples=100, deadline=None)
def test_items_are_those_of_a_slow_reading(rows, price, sparse):
    """Whether the cells are sorted or looked up in a table."""
    rows = [(sequence, 4, 1) for sequence in range(4)] + rows
    table = pd.DataFrame(rows, columns=["sequence", "cost", "q"])
    table["number"] = table.groupby("sequence").cumcount()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items_module, "SPARSE", sparse)
        items, number_NK = quality_by_cost(table.assign(cost=price * table["cost"]), 4 * price, "q")
    best = {}
    for row in table.itertuples(index=False):
        if row.cost <= 4:
            key = (row.q, -row.number)
            best[row.sequence, row.cost] = max(best.get((row.sequence, row.cost), key), key)
    there = number_NK >= 0
    found = {
        (int(n), round(items.cost_NC[n, k] / price)): (items.quality_NC[n, k], -number_NK[n, k])
        for n, k in zip(*np.nonzero(there), strict=True)
    }
    assert found == best
    assert (items.quality_NC[~there] == -np.inf).all()
    assert all((np.diff(items.cost_NC[n, there[n]]) > 0).all() for n in range(4))
    assert not (np.diff(there.astype(int), axis=1) > 0).any(), "items first, then none"
