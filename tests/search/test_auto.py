"""How near the default search comes, and what it does on the way."""

from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest

from oracle.search import STRATEGIES, Archive, Hints, Memory, Problem, Space, make
from oracle.search.acquisition import Promising
from oracle.search.auto import LEAST_BATCH, OPENING, SUGGESTIONS
from oracle.testing.landscapes import LANDSCAPES, METRIC, additive, cliff, gaps, outcome, pairs, run
from oracle.types import Proposal


@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize("kind", LANDSCAPES)
def test_comes_near_the_minimal_budget(kind: str, batch: int) -> None:
    """In units too many, of 4096 masks; measure.py has the numbers of more seeds and of every strategy."""
    found = []
    for seed in range(6):
        landscape = LANDSCAPES[kind](seed)
        found.append(gaps(landscape, make("auto", landscape.problem(seed)), (200, 1000), batch))
    after_200, after_1000 = np.mean(found, axis=0)
    assert after_200 <= (0 if kind == "additive" else 0.5)
    assert after_1000 <= (0 if kind == "additive" else 0.1)


@pytest.mark.parametrize("kind", LANDSCAPES)
@pytest.mark.parametrize(
    "other", ["local", "greedy", "beam", "random", "families", "by-budget", "transfer", "mcts-cola"]
)
def test_no_other_strategy_is_nearer_after_few_evaluations(kind: str, other: str) -> None:
    assert after_50(kind, "auto") <= after_50(kind, other) + 0.1


@cache
def after_50(kind: str, name: str) -> float:
    """Mean gap to the minimal budget."""
    landscapes = [LANDSCAPES[kind](seed) for seed in range(6)]
    return float(np.mean([gaps(one, make(name, one.problem()), (50,), 16) for one in landscapes]))


@pytest.mark.slow
def test_the_cost_hardly_depends_on_the_batch() -> None:
    def cost(batch: int) -> float:
        return float(
            np.mean([run(cliff(s, 24), make("auto", cliff(s, 24).problem()), 120, batch)[-1] for s in range(4)])
        )

    costs = [cost(batch) for batch in (8, 256)]
    assert max(costs) - min(costs) <= 2, costs
    assert max(costs) < 20


@pytest.mark.slow
def test_finds_much_cheaper_masks_of_many_units_than_a_local_search() -> None:
    for kind in (additive, pairs, cliff):
        auto, local = (
            np.mean([run(kind(s, 24), make(name, kind(s, 24).problem()), 150, 32)[-1] for s in range(3)])
            for name in ("auto", "local")
        )
        assert auto <= local - 2


def test_learns_from_dropped_outcomes() -> None:
    """If every mask that fails is dropped, it is known of each whether it qualifies, and no more."""
    found = []
    for seed in range(6):
        landscape = pairs(seed)
        strategy = make("auto", landscape.problem())
        archive = strategy.problem.archive
        while len(archive) < 200 and not strategy.done:
            outcomes = landscape.evaluate(strategy.ask(16))
            least = -np.inf if archive.least is None else archive.least
            strategy.tell([o if o.quality[METRIC] >= least else replace(o, dropped=True, quality={}) for o in outcomes])
        found.append(archive.upper.cost - landscape.optimum)
    assert np.mean(found) <= 0.5


def test_the_opening_comes_before_the_model_and_batches_grow() -> None:
    landscape = cliff(1, 30)
    strategy = make("auto", landscape.problem())
    sizes = []
    while len(strategy.problem.archive) < 200:
        batch = strategy.ask(256)
        assert strategy.ask(256) == []
        sizes.append(len(batch))
        strategy.tell(landscape.evaluate(batch))
    assert sizes[:3] == [1, OPENING, LEAST_BATCH]
    assert sizes[-1] > 3 * LEAST_BATCH
    assert all(size <= max(LEAST_BATCH, sum(sizes[: i + 2]) // 4) for i, size in enumerate(sizes[2:]))


def test_opens_with_what_is_known_beforehand() -> None:
    space = Space.of(12)
    known = Archive(space, METRIC)
    known.add([outcome(space.full, 1.0), outcome((1, 2, 3), 1.0)])
    memory = Memory()
    memory.learn(known)
    masks = {3.0: (0, 5, 11), 6.0: (0, 2, 4, 6, 8, 11)}
    landscape = additive(0)
    problem = landscape.problem(0, memory=memory, hints=Hints(masks=masks))
    strategy = make("auto", problem)
    strategy.tell(landscape.evaluate(strategy.ask(1)))
    opening = [one.allocation for one in strategy.ask(100)]
    assert opening[0] == ()
    assert set(memory.suggest(space, SUGGESTIONS)) | set(masks.values()) <= set(opening)
    assert (1, 2, 3) in opening
    assert strategy.ask(100) == [], "the model waits for the opening"


def test_memory_of_alike_sequences_saves_evaluations() -> None:
    landscape = cliff(4, 24)
    first = make("auto", landscape.problem(0))
    cost = run(landscape, first, 150, 32)[-1]
    memory = Memory()
    memory.learn(first.problem.archive)
    assert run(landscape, make("auto", landscape.problem(1, memory=memory)), 2 + SUGGESTIONS, 32)[-1] <= cost


def test_a_share_proves_the_minimal_budget_where_that_is_affordable() -> None:
    landscape = replace(additive(0, 16), quality=lambda kept: kept[:, [3, 7]].sum(axis=1), tolerance=0.0)
    strategy = make("auto", landscape.problem())
    archive = strategy.problem.archive
    run(landscape, strategy, 200, 16)
    assert archive.certified and archive.upper.allocation == (3, 7)
    assert len(archive) <= 137, "at most the masks of fewer than three units"


@pytest.mark.parametrize("seed", range(3))
def test_what_no_model_foresees_is_found_by_covering_the_small_masks(seed: int) -> None:
    """One mask of three units is lucky, and nothing around it hints at that."""
    lucky = np.isin(np.arange(12), np.random.default_rng(seed).choice(12, 3, replace=False))

    def quality(kept: np.ndarray) -> np.ndarray:
        return ((kept.sum(axis=1) >= 8) | (kept == lucky).all(axis=1)).astype(float)

    landscape = replace(additive(0), quality=quality, tolerance=0.0)
    problem = landscape.problem(seed)
    assert run(landscape, make("auto", problem), 1000, 64)[-1] == 3
    assert problem.archive.certified


def test_evaluations_are_not_spent_on_budgets_that_cannot_be_exhausted() -> None:
    landscape = cliff(2, 30)
    problem = landscape.problem()
    run(landscape, make("auto", problem), 120, 32)
    assert problem.archive.upper.cost > 6
    singles = [mask for mask in problem.archive.outcomes if len(mask) == 1]
    assert len(singles) <= 8, "the opening and a few guesses, not the 30 that there are"


def test_neighbours_of_the_best_are_tried_whatever_the_model_thinks() -> None:
    """Even if the model expects nothing but single units to qualify, the incumbent's neighbours get their share."""
    landscape = additive(3, 30)
    strategy = make("auto", landscape.problem())
    with mock.patch.object(Promising, "best", lambda self, count: [self._space.mask({i}) for i in range(count)]):
        run(landscape, strategy, 30, 32)
        upper = set(strategy.problem.archive.upper.allocation)
        batch = [set(one.allocation) for one in strategy.ask(32)]
    assert len(upper) > 4
    assert any(len(upper - mask) <= 2 and mask < upper for mask in batch)
    assert any(len(mask) == 1 for mask in batch)


def test_is_bold_where_everything_qualifies() -> None:
    landscape = replace(additive(0, 30), quality=lambda kept: np.zeros(len(kept)), tolerance=0.0)
    problem = landscape.problem()
    assert run(landscape, make("auto", problem), 100, 16)[1] == 0
    assert problem.archive.certified


def test_uneven_costs() -> None:
    """The cheapest of two units that do the same is found, and everything cheaper is ruled out in the end."""
    costs = (4.0, 0.5, 1.0, 2.0, 0.0, 1.0)
    space = Space(units=6, free=(0, 1, 2, 3, 5), costs=costs)
    archive = Archive(space, METRIC)
    strategy = make("auto", Problem(space=space, archive=archive, seed=0))
    while not strategy.done:
        strategy.tell([outcome(one.allocation, float(bool({0, 3} & set(one.allocation)))) for one in strategy.ask(8)])
    assert archive.upper is not None and archive.upper.allocation == (3, 4)
    cheaper = [mask for count in range(6) for mask in space.masks(count) if space.cost(mask) < 2]
    assert all(archive.settled(mask) for mask in cheaper)


def test_goes_on_where_layer_paths_were_searched() -> None:
    landscape = additive(1, 6)
    problem = landscape.problem()
    problem.archive.add([outcome(landscape.space.full, 0.0), outcome((5, 5, 0), 1.0)])
    strategy = STRATEGIES["auto"](problem)
    while not strategy.done:
        strategy.tell(landscape.evaluate(strategy.ask(16)))
    assert problem.archive.certified and problem.archive.upper.cost <= 3


def test_proposals_are_its_own() -> None:
    landscape = additive(0)
    strategy = make("auto", landscape.problem())
    strategy.tell(landscape.evaluate(strategy.ask(1)))
    assert {one.family for one in strategy.ask(30)} == {"auto"}
    assert Proposal(allocation=(), family="auto") not in strategy.ask(30)
