"""Enumeration, named families and random masks: which masks they propose, and in what order."""

from collections import Counter
from itertools import chain, combinations

import pytest

from oracle.allocations import early_exit, unified
from oracle.search import Archive, Problem, Space, make
from oracle.search.enumeration import evenly
from oracle.testing.landscapes import METRIC, additive, outcome, plateaus, run
from oracle.types import Allocation, Proposal

FIXED = Space(units=9, free=(1, 2, 3, 5, 6, 7), costs=(1.0,) * 9)


def known(space: Space, full: float = 1.0) -> Problem:
    """A problem in which the full model alone is known."""
    archive = Archive(space, METRIC)
    archive.add([outcome(space.full, full)])
    return Problem(space=space, archive=archive, seed=3)


def asked(name: str, problem: Problem, most: int, count: int = 16) -> list[Proposal]:
    """What a strategy proposes if nothing ever qualifies."""
    strategy = make(name, problem)
    found: list[Proposal] = []
    while not strategy.done and len(found) < most:
        batch = strategy.ask(min(count, most - len(found)))
        strategy.tell([outcome(one.allocation, 0.0) for one in batch])
        found += batch
    return found


def masks(proposals: list[Proposal]) -> list[Allocation]:
    return [proposal.allocation for proposal in proposals]


@pytest.mark.parametrize("name", ["exhaustive", "by-budget"])
def test_enumeration_is_complete_and_rises(name: str) -> None:
    found = masks(asked(name, known(FIXED), 1000))
    everything = chain.from_iterable(combinations(FIXED.free, count) for count in range(6))
    assert found == [tuple(sorted({0, 4, 8, *chosen})) for chosen in everything]


def test_a_huge_space_is_enumerated_lazily() -> None:
    found = masks(asked("exhaustive", known(Space.of(48)), 100))
    assert found[:2] == [(), (0,)] and found[-1] == (1, 5)


def test_by_budget_stops_at_the_proof() -> None:
    landscape = plateaus(4, 9)
    assert 1 < landscape.optimum < 8
    problem = landscape.problem()
    run(landscape, make("by-budget", problem), 2**9, batch=4)
    assert problem.archive.certified and problem.archive.lower == landscape.optimum
    costs = Counter(len(mask) for mask in problem.archive.outcomes if mask != landscape.space.full)
    assert max(costs) == landscape.optimum
    assert not problem.archive.exhausted(landscape.optimum), "the first that qualifies is proof enough"


def test_by_budget_finishes_a_budget_before_the_next() -> None:
    strategy = make("by-budget", known(Space.of(6)))
    assert masks(strategy.ask(100)) == [()]
    assert strategy.ask(100) == []
    strategy.tell([outcome((), 0.0)])
    assert masks(strategy.ask(4)) == [(0,), (1,), (2,), (3,)]
    assert masks(strategy.ask(4)) == [(4,), (5,)]


@pytest.mark.parametrize("name", ["families", "spread"])
def test_families_at_every_budget(name: str) -> None:
    found = {one.allocation: one.family for one in asked(name, known(Space.of(30)), 60)}
    for budget in range(30):
        assert unified(30, budget) in found and early_exit(30, budget) in found
    assert found[unified(30, 10)] == "unified"
    assert found[early_exit(30, 10)] == "early-exit"


def test_families_keep_the_fixed_units() -> None:
    found = masks(asked("families", known(FIXED), 100))
    assert (0, 1, 2, 3, 4, 8) in found, "early exit after four layers, and the fixed ones"
    assert all({0, 4, 8} <= set(mask) for mask in found)


@pytest.mark.parametrize("units", [12, 24, 30, 48])
def test_any_beginning_of_the_families_covers_low_and_high_budgets(units: int) -> None:
    costs = [len(mask) for mask in masks(asked("families", known(Space.of(units)), 200))]
    for length in range(12, len(costs) + 1):
        assert {min(3, 4 * cost // units) for cost in costs[:length]} == {0, 1, 2, 3}, length


@pytest.mark.parametrize("count", [1, 2, 5, 8, 31])
def test_evenly(count: int) -> None:
    order = evenly(count)
    assert sorted(order) == list(range(count))
    for length in range(1, count):
        ranks = sorted([*order[:length], count])
        assert max(b - a for a, b in zip([0, *ranks], ranks, strict=False)) <= 2 * count / length + 1


@pytest.mark.parametrize(("name", "count"), [("random", 110), ("random", 300), ("spread", 300)])
def test_random_masks_are_spread_evenly_over_the_budgets(name: str, count: int) -> None:
    found = [one for one in asked(name, known(Space.of(30)), count) if one.family == "random"]
    counts = Counter(len(one.allocation) for one in found)
    # At the ends there are too few masks for the same number a budget.
    middle = [counts[budget] for budget in range(3, 28)]
    assert max(middle) - min(middle) <= 1
    assert sum(middle) > 0.75 * counts.total() > 0


def test_random_masks_of_a_budget_are_uniform() -> None:
    found: Counter[Allocation] = Counter()
    for seed in range(300):
        problem = known(Space.of(6))
        problem.seed = seed
        found[next(mask for mask in masks(asked("random", problem, 20, 20)) if len(mask) == 3)] += 1
    assert len(found) == 20 and max(found.values()) <= 3 * 300 / 20


def test_other_seeds_draw_other_masks() -> None:
    drawn = []
    for seed in (0, 1):
        problem = known(Space.of(30))
        problem.seed = seed
        drawn.append(set(masks(asked("random", problem, 120))))
    assert len(drawn[0] & drawn[1]) < 20


@pytest.mark.parametrize("name", ["random", "spread"])
def test_a_small_space_is_enumerated(name: str) -> None:
    found = asked(name, known(Space.of(8)), 1000)
    counts = Counter(len(one.allocation) for one in found)
    assert counts == {0: 1, 1: 8, 2: 28, 3: 56, 4: 70, 5: 56, 6: 28, 7: 8}


@pytest.mark.parametrize("name", ["exhaustive", "families", "random", "spread"])
def test_how_many_are_asked_at_a_time_changes_nothing(name: str) -> None:
    once = asked(name, known(Space.of(12)), 60, 60)
    assert [asked(name, known(Space.of(12)), 60, count) for count in (1, 7)] == [once, once]


def test_learns_nothing_from_outcomes() -> None:
    landscape = additive(0)
    problem = landscape.problem(3)
    run(landscape, make("random", problem), 61, 16)
    assert set(problem.archive.outcomes) == {landscape.space.full, *masks(asked("random", known(Space.of(12)), 60))}
