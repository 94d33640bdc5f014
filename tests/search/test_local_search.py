"""Greedy, beam and local search, step by step."""

from collections.abc import Callable

import pytest

from oracle.search import Archive, Problem, Space, Strategy, make
from oracle.search.local_search import Beam
from oracle.testing.landscapes import METRIC, additive, outcome, pairs, plateaus, run
from oracle.types import Allocation

Quality = Callable[[frozenset[int]], float]


def start(name: str, units: int, quality: Quality, tolerance: float = 0.0) -> tuple[Strategy, Archive]:
    archive = Archive(Space.of(units), METRIC, tolerance)
    archive.add([outcome(archive.space.full, quality(frozenset(range(units))))])
    return make(name, Problem(space=archive.space, archive=archive, seed=0)), archive


def step(strategy: Strategy, quality: Quality, count: int = 100) -> set[Allocation]:
    """The next batch, evaluated."""
    batch = [one.allocation for one in strategy.ask(count)]
    strategy.tell([outcome(mask, quality(frozenset(mask))) for mask in batch])
    return set(batch)


def test_greedy_by_hand() -> None:
    worth = {0: 4.0, 1: 1.0, 2: 0.5, 3: 2.0}

    def quality(kept: frozenset[int]) -> float:
        return sum(worth[unit] for unit in kept)

    strategy, archive = start("greedy", 4, quality, tolerance=1.6)
    assert step(strategy, quality) == {(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)}
    assert step(strategy, quality) == {(1, 3), (0, 3), (0, 1)}, "without unit 2, the least"
    assert step(strategy, quality) == {(3,), (0,)}, "without unit 1 too; nothing less qualifies"
    assert step(strategy, quality) == {()}, "then upwards"
    assert step(strategy, quality) == {(1,), (2,)}, "what adds most to nothing"
    assert strategy.done
    assert archive.upper is not None and archive.upper.allocation == (0, 3) and archive.certified


def test_downwards_only_what_qualifies_is_followed() -> None:
    strategy, _ = start("greedy", 4, lambda kept: float(len(kept)))
    assert {len(mask) for mask in step(strategy, lambda kept: float(len(kept)))} == {3}
    assert step(strategy, lambda kept: float(len(kept))) == {()}, "nothing is left but to come from below"


def test_greedy_finds_additive_optima_in_few_evaluations() -> None:
    for seed in range(20):
        landscape = additive(seed)
        costs = run(landscape, make("greedy", landscape.problem()), 1000, 16)
        assert costs[-1] == landscape.optimum
        assert len(costs) <= 1 + 12 * 13


def test_upwards_finds_what_lies_beyond_a_bad_step_down() -> None:
    def quality(kept: frozenset[int]) -> float:
        return float(kept == {2} or len(kept) == 5)

    strategy, archive = start("greedy", 5, quality)
    while not strategy.done:
        step(strategy, quality)
    assert archive.upper is not None and archive.upper.allocation == (2,)


def test_a_beam_follows_several_paths() -> None:
    """The best two units to drop are not among the three that are the best one by one, but among four."""

    def quality(kept: frozenset[int]) -> float:
        return {8: 1.0, 7: 0.9 - 0.01 * min(set(range(8)) - kept, default=0)}.get(
            len(kept), float(not kept & {2, 3}) if len(kept) == 6 else 0.0
        )

    costs = {}
    for name in ("greedy", "beam"):
        strategy, archive = start(name, 8, quality, tolerance=0.2)
        while not strategy.done:
            step(strategy, quality)
        assert archive.upper is not None
        costs[name] = archive.upper.cost
    assert Beam.width == 4 and costs == {"greedy": 7, "beam": 6}


def test_a_beam_is_seldom_worse_than_greed() -> None:
    def total(name: str) -> int:
        landscapes = [kind(seed) for kind in (pairs, plateaus) for seed in range(10)]
        return sum(run(one, make(name, one.problem()), 4096, 64)[-1] for one in landscapes)

    assert total("beam") < total("greedy")


def test_local_search_tries_removals_first_then_wider() -> None:
    def quality(kept: frozenset[int]) -> float:
        return float(len(kept) == 6)

    strategy, archive = start("local", 6, quality)
    assert {len(mask) for mask in step(strategy, quality, 6)} == {5}
    assert archive.exhausted(5)
    assert {len(mask) for mask in step(strategy, quality, 9)} == {4}


def test_local_search_tries_equals_of_the_incumbent_last() -> None:
    def quality(kept: frozenset[int]) -> float:
        return float(len(kept) == 5 or kept == {0, 1, 2})

    strategy, archive = start("local", 5, quality)
    archive.add([outcome((0, 1, 2), 1.0)])
    costs = []
    for _ in range(9):
        costs += [len(mask) for mask in step(strategy, quality, 1)]
    # Two steps down, and restarts from a random point of the frontier; then exchanges.
    assert sorted(costs[:6]) == [1, 1, 1, 2, 2, 2] and costs[6:] == [3, 3, 3]


def test_local_search_moves_to_whatever_is_cheaper() -> None:
    def quality(kept: frozenset[int]) -> float:
        return float({1, 4} <= kept)

    strategy, archive = start("local", 8, quality)
    for _ in range(20):
        upper = archive.upper
        assert upper is not None
        assert all(len(mask) <= upper.cost for mask in step(strategy, quality, 8))
    assert archive.upper is not None and archive.upper.allocation == (1, 4)


def test_local_search_crosses_plateaus() -> None:
    """Only an exchange leads on: the incumbent's neighbours of lower cost all fail."""

    def quality(kept: frozenset[int]) -> float:
        return float(len(kept) == 6 or kept in ({0, 1, 2, 3}, {0, 1, 2, 4}, {0, 4}))

    strategy, archive = start("local", 6, quality)
    while not strategy.done:
        step(strategy, quality, 5)
    assert archive.upper is not None and archive.upper.allocation == (0, 4) and archive.certified


@pytest.mark.parametrize("kind", [additive, pairs, plateaus])
def test_local_search_finds_the_optimum_in_the_end(kind) -> None:
    for seed in range(4):
        landscape = kind(seed)
        assert run(landscape, make("local", landscape.problem()), 1000, 32, landscape.optimum)[-1] == landscape.optimum
