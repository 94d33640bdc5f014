"""Tree search: the bound, the edits, the tree by hand, and how short the paths are that it finds."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from oracle.errors import InputError
from oracle.search.archive import Archive
from oracle.search.mcts import COLA, DRLLM, WIDE, Cola, DrLlm, Mcts, Node, Wide
from oracle.search.space import Space
from oracle.search.strategy import Problem
from oracle.testing.landscapes import METRIC, additive, outcome, run
from oracle.types import Allocation, Outcome

Edit = Callable[[Allocation], Allocation]

TINY = replace(WIDE, random=0.0, widening=1.0)


def problem(space: Space, seed: int = 0, known: Iterable[Outcome] = ()) -> Problem:
    archive = Archive(space, METRIC)
    archive.add(known)
    return Problem(space=space, archive=archive, seed=seed)


def good(path: Allocation, needed: Iterable[int]) -> Outcome:
    """Qualifies if all of the needed units run."""
    return outcome(path, float(set(needed) <= set(path)))


def search(strategy: Mcts, needed: Iterable[int], batch: int = 1) -> list[Allocation]:
    asked: list[Allocation] = []
    while not strategy.done:
        proposals = strategy.ask(batch)
        assert 0 < len(proposals) <= batch
        asked += [one.allocation for one in proposals]
        strategy.tell([good(one.allocation, needed) for one in reversed(proposals)])
    return asked


def nodes(root: Node) -> list[Node]:
    return [root, *(node for child in root.children for node in nodes(child))]


def test_upper_confidence_bound() -> None:
    node = Node(path=(0, 1), untried=[], visits=4, reward=3.0)
    # 3/4 + 1.8 sqrt(ln 9 / 4) - 3 * 2/3
    assert node.ucb(9, 2 / 3, DRLLM) == pytest.approx(0.75 + 1.8 * 0.741152 - 2.0, abs=1e-5)
    assert node.ucb(9, 2 / 3, COLA) - node.ucb(9, 2 / 3, DRLLM) == pytest.approx(-2 * 2 / 3)


def test_published_settings() -> None:
    assert (COLA.penalty, COLA.simulations, COLA.random) == (5.0, 200, 0.1)
    assert (COLA.skip, COLA.block, COLA.repeats) == (4, 4, 4)
    assert (DRLLM.exploration, DRLLM.penalty, DRLLM.simulations) == (1.8, 3.0, 200)
    assert (DRLLM.skip, DRLLM.block, DRLLM.repeats) == (2, 1, 1)
    assert (WIDE.exploration, WIDE.penalty, WIDE.skip, WIDE.block, WIDE.repeats) == (1.8, 3.0, 2, 1, 1)


def test_the_tree_of_three_layers_by_hand() -> None:
    """Layer 1 is needed. The root has five edits, to 12, 02, 01, 2 and 0, and two of them keep that layer."""
    strategy = Wide(problem(Space.of(3)), replace(TINY, simulations=6))
    asked = search(strategy, {1})
    root = strategy._root
    # The full model was evaluated first and is the first simulation; the five others try every edit of the root.
    assert asked[0] == (0, 1, 2)
    assert sorted(asked[1:]) == sorted(child.path for child in root.children) == [(0,), (0, 1), (0, 2), (1, 2), (2,)]
    assert (root.visits, root.reward) == (6, 3.0)
    assert {child.path: (child.visits, child.reward) for child in root.children} == {
        (1, 2): (1, 1.0),
        (0, 1): (1, 1.0),
        (0, 2): (1, 0.0),
        (0,): (1, 0.0),
        (2,): (1, 0.0),
    }
    # With lambda 3 a layer less is worth a success: of these bounds four tie.
    explore = 1.8 * math.sqrt(math.log(6))
    assert {child.path: child.ucb(6, len(child.path) / 3, TINY) for child in root.children} == pytest.approx(
        {(1, 2): explore - 1, (0, 1): explore - 1, (0, 2): explore - 2, (0,): explore - 1, (2,): explore - 1}
    )
    strategy._settings = replace(TINY, penalty=2.0)
    assert strategy._choose(root).path in {(1, 2), (0, 1)}
    strategy._settings = replace(TINY, penalty=4.0)
    assert strategy._choose(root).path in {(0,), (2,)}


def test_a_random_child_is_chosen_as_often_as_set() -> None:
    strategy = Wide(problem(Space.of(3)), replace(TINY, random=0.4))
    strategy._started = 2
    best = Node(path=(0, 1), untried=[], visits=1, reward=1.0)
    worst = Node(path=(0, 2), untried=[], visits=1)
    root = Node(path=(0, 1, 2), untried=[], children=[best, worst], visits=2)
    share = np.mean([strategy._choose(root) is worst for _ in range(2000)])
    assert share == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("widening", "children"), [(0.0, 1), (0.5, 5), (1.0, 23)])
def test_widening_bounds_the_children(widening: float, children: int) -> None:
    strategy = Wide(problem(Space.of(12)), replace(WIDE, simulations=24, widening=widening))
    search(strategy, range(6))
    assert len(strategy._root.children) == children
    assert all(len(node.children) <= math.ceil(node.visits**widening) for node in nodes(strategy._root))


@pytest.mark.parametrize("build", [Cola, Wide])
@pytest.mark.parametrize("batch", [1, 16])
def test_the_books_balance(build: type[Mcts], batch: int) -> None:
    strategy = build(problem(Space.of(10, paths=True), seed=3))
    search(strategy, {0, 4, 9}, batch)
    outcomes = strategy.problem.archive.outcomes
    assert strategy._root.visits == build.settings.simulations
    for node in nodes(strategy._root):
        # All visits but those that ended here went on to a child; no virtual loss is left.
        ended = node.visits - sum(child.visits for child in node.children)
        assert ended == 1 or not (node.children or node.untried)
        assert len({node.path, *(child.path for child in node.children)}) == 1 + len(node.children)
        here = strategy.problem.archive.qualifies(outcomes[node.path])
        assert node.reward == ended * here + sum(child.reward for child in node.children)


def test_open_simulations_turn_elsewhere() -> None:
    strategy = Wide(problem(Space.of(12), known=[good(tuple(range(12)), {0})]), replace(WIDE, random=0.0))
    batch = [one.allocation for one in strategy.ask(16)]
    assert len(set(batch)) == 16
    assert strategy._root.visits >= 17
    assert sum(child.visits for child in strategy._root.children) == strategy._root.visits - 1
    assert strategy._root.reward == 1.0, "only the full model's outcome is known"


@pytest.mark.parametrize("build", [Cola, Wide])
def test_layers_repeat_only_where_paths_are_allowed(build: type[Mcts]) -> None:
    masks = search(build(problem(Space.of(8), seed=1)), {0, 5})
    assert all(list(path) == sorted(set(path)) for path in masks)
    paths = search(build(problem(Space.of(8, paths=True), seed=1)), {0, 5})
    assert any(len(set(path)) < len(path) for path in paths)
    assert all(len(path) <= 16 for path in paths)
    assert len(set(paths)) == len(paths)


def test_cola_repeats_blocks_and_drllms_edits_single_layers() -> None:
    def children(build: type[Mcts]) -> set[Allocation]:
        strategy = build(problem(Space.of(4, paths=True)))
        return {edit(strategy._root.path) for edit in strategy._root.untried}

    skipped = {(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2), (2, 3), (0, 3), (0, 1)}
    once_more = {(0, 0, 1, 2, 3), (0, 1, 1, 2, 3), (0, 1, 2, 2, 3), (0, 1, 2, 3, 3)}
    assert children(Wide) == skipped | once_more
    assert skipped | once_more | {(), (3,), (0,), (0, 1, 2, 3, 0, 1, 2, 3)} <= children(Cola)
    assert (0, 1, 2, 1, 2, 1, 2, 3) in children(Cola)
    assert max(len(path) for path in children(Cola)) == 8


@pytest.mark.parametrize("paths", [False, True])
def test_fixed_units_always_run(paths: bool) -> None:
    space = Space(units=8, free=(1, 2, 4, 5), costs=(1.0,) * 8, paths=paths)
    asked = search(Cola(problem(space)), {1})
    assert len(asked) > 10
    assert all({0, 3, 6, 7} <= set(path) for path in asked)


def test_ends_after_the_published_number_of_simulations() -> None:
    # In 30 layers hardly a path comes twice.
    assert 190 <= len(search(Cola(problem(Space.of(30))), range(10))) <= 200
    assert 45 <= len(search(Wide(problem(Space.of(30))), range(10))) <= 50


@pytest.mark.parametrize("batch", [1, 16])
def test_ends_in_an_exhausted_space(batch: int) -> None:
    strategy = Cola(problem(Space.of(3)))
    asked = search(strategy, {1}, batch)
    assert len(set(asked)) == len(asked) <= 8
    assert strategy.ask(batch) == []


def test_known_paths_count_as_simulations_and_are_not_asked_again() -> None:
    space = Space.of(12)
    first = search(Wide(problem(space, seed=5)), {0, 7})
    again = Wide(problem(space, seed=5, known=[good(path, {0, 7}) for path in first]))
    assert again.done and again.ask(5) == []
    assert again._root.visits == 50
    # Half known, and the rest is what the whole search asked for, as rewards are the same.
    half = [good(path, {0, 7}) for path in first[:25]]
    assert search(Wide(problem(space, seed=5, known=half)), {0, 7}) == first[25:]


def test_masks_that_an_exhausted_budget_rules_out_fail_unevaluated() -> None:
    strategy = Cola(problem(Space.of(6), known=[good(tuple(range(6)), {0})]))
    for count in range(6):
        strategy.problem.archive.exhaust(count)
    assert strategy.done
    assert (strategy._root.visits, strategy._root.reward) == (200, 1.0)


@pytest.mark.parametrize("batch", [1, 16])
def test_equal_seeds_give_equal_searches(batch: int) -> None:
    first, again, other = (search(Cola(problem(Space.of(12), seed)), {2, 3}, batch) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("batch", [1, 16])
def test_finds_the_optimum_of_eight_layers(batch: int) -> None:
    def excess(build: type[Mcts], seed: int) -> int:
        landscape = additive(seed, 8)
        return run(landscape, build(landscape.problem(seed)), 200, batch)[-1] - landscape.optimum

    found = [excess(Cola, seed) for seed in range(5)]
    assert max(found) <= 1
    assert found.count(0) >= 3
    assert max(excess(Wide, seed) for seed in range(5)) <= 2


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(("layers", "required", "cola", "wide"), [(12, 3, 5.5, 7.5), (30, 8, 21.0, 25.0)])
def test_leaves_out_most_of_what_is_not_needed(
    layers: int, required: int, cola: float, wide: float, batch: int
) -> None:
    """Some layers are needed and nothing else matters: single successes, no slope. Mean cost of eight searches."""

    def mean(build: type[Mcts]) -> float:
        costs = []
        for seed in range(8):
            needed = set(np.random.default_rng(seed).choice(layers, required, replace=False).tolist())
            strategy = build(problem(Space.of(layers), seed))
            search(strategy, needed, batch)
            assert strategy.problem.archive.upper is not None
            costs.append(strategy.problem.archive.upper.cost)
        return float(np.mean(costs))

    assert mean(Cola) <= cola
    assert mean(Wide) <= wide


@pytest.mark.parametrize("change", [{"skip": 0}, {"random": 1.5}, {"widening": -0.1}, {"longest": 0.5}])
def test_settings_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="given"):
        replace(COLA, **change)


def released(
    layers: int, quality: Callable[[Allocation], float], edits: Iterator[Edit], simulations: int = 200
) -> list[Allocation]:
    """The paths that Dr.LLM's released search evaluates, in order, given its random edits.

    Written from its rules: the leaf of a chain is expanded, results are memoised, and the search ends once the reward
    exceeds the full model's, or a right path leaves out two layers.
    """
    rewards: dict[Allocation, float] = {}
    path = full = tuple(range(layers))
    for simulation in range(simulations):
        if simulation and path:  # nothing is left to edit in an empty path
            path = next(edits)(path)
        reward = rewards.setdefault(path, quality(path))
        if reward > rewards[full] or (reward > 0.5 and len(path) + 2 <= layers):
            break
    return list(rewards)


def chain_of(strategy: DrLlm) -> list[Node]:
    return nodes(strategy._root)


@pytest.mark.parametrize("paths", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wrong", [False, True])
def test_drllm_is_the_released_chain(paths: bool, seed: int, wrong: bool) -> None:
    layers = 12
    needed = set(np.random.default_rng(seed).choice(layers, 4, replace=False).tolist())

    def quality(path: Allocation) -> float:
        """Right if all needed layers run; where the full model is to be wrong, if layer 0 is left out as well."""
        return float(needed <= set(path)) if not wrong else float(0 not in path and len(path) < layers - 3)

    strategy = DrLlm(problem(Space.of(layers, paths=paths), seed))
    asked: list[Allocation] = []
    while not strategy.done:
        batch = strategy.ask(16)
        assert len(batch) == 1, "each may be the last"
        asked += [one.allocation for one in batch]
        strategy.tell([outcome(one.allocation, quality(one.allocation)) for one in batch])
    chain = chain_of(strategy)
    assert all(len(node.children) <= 1 for node in chain)

    def edits() -> Iterator[Edit]:
        """The edits that the chain took, from their results."""
        for child in chain[1:]:
            yield lambda path, child=child: child.path

    assert asked == released(layers, quality, edits())
    found = strategy.problem.archive
    right = [path for path in asked if quality(path) == 1 and (wrong or len(path) <= layers - 2)]
    assert right in ([], asked[-1:]), "it ends at the first such path"
    assert len(chain) - 1 < DRLLM.simulations
    assert found.full is not None


def test_drllm_ends_after_its_simulations_and_counts_the_edits_that_change_nothing() -> None:
    strategy = DrLlm(problem(Space.of(30, paths=True)))
    asked = search(strategy, range(30))  # no shorter path is ever right
    assert strategy._root.visits == 200
    idle = sum(child.path == node.path for node in nodes(strategy._root) for child in node.children)
    # 30 of 119 edits of 30 layers repeat one of them zero times.
    assert 25 <= idle <= 75
    assert len(asked) <= 200 - idle
    assert {edit(tuple(range(30))) for edit in DrLlm(problem(Space.of(30, paths=True)))._root.untried} >= {
        tuple(range(30)),
        tuple(range(1, 30)),
        (0, *range(30)),
    }


def test_wide_does_not_stop_early() -> None:
    strategy = Wide(problem(Space.of(30)))
    search(strategy, {0})
    assert strategy._root.visits == 50
