"""What guides a search from outside: hints, and the memory of other sequences."""

from itertools import permutations

import numpy as np
import pytest

from oracle.errors import InputError
from oracle.search import Archive, Hints, Memory, Problem, Space, make
from oracle.testing.landscapes import METRIC, additive, outcome, pairs, plateaus
from oracle.types import Allocation, Proposal

SPACE = Space.of(5)


def archive(qualifying: list[Allocation], failing: list[Allocation] = ()) -> Archive:
    found = Archive(SPACE, METRIC)
    found.add([outcome(SPACE.full, 1.0)])
    found.add([outcome(mask, 1.0) for mask in qualifying] + [outcome(mask, 0.0) for mask in failing])
    return found


def learned(*archives: Archive) -> Memory:
    memory = Memory()
    for one in archives:
        memory.learn(one)
    return memory


def sampled(seed: int) -> Archive:
    landscape = [additive, pairs, plateaus][seed % 3](seed, 8)
    found = Archive(landscape.space, METRIC, landscape.tolerance)
    rng = np.random.default_rng(seed)
    masks = [tuple(np.flatnonzero(row).tolist()) for row in rng.random((40, 8)) < 0.6]
    everything = dict.fromkeys([landscape.space.full, *masks])
    found.add(landscape.evaluate([Proposal(allocation=mask, family="random") for mask in everything]))
    return found


def test_the_masks_that_save_most_are_suggested() -> None:
    memory = learned(
        archive([(0, 1), (0, 2, 3)]),
        archive([(0, 2, 3), (1, 2, 3, 4)]),
        archive([(0, 2, 3), (0, 4)]),
    )
    # (0, 2, 3) saves two units on each of the three; then either of two masks saves one more on one of them.
    assert memory.suggest(SPACE, 2)[-1] == (0, 2, 3)
    assert set(memory.suggest(SPACE, 6)) >= {(0, 1), (0, 4), (0, 2, 3)}
    assert (1, 2, 3, 4) not in memory.suggest(SPACE, 6), "it saves nothing that another one does not"


def test_suggestions_are_different_masks_of_the_space_the_cheapest_first() -> None:
    memory = learned(*[sampled(seed) for seed in range(6)])
    for space in (Space.of(8), Space(units=8, free=(1, 2, 5, 6), costs=(1.0, 2.0) * 4)):
        for count in (1, 2, 5, 16):
            found = memory.suggest(space, count)
            assert 0 < len(found) <= count and len(set(found)) == len(found)
            assert all(space.fixed <= set(mask) and list(mask) == sorted(set(mask)) for mask in found)
            assert found == sorted(found, key=lambda mask: (space.cost(mask), mask))


def test_suggestions_reach_over_the_costs() -> None:
    costs = [len(mask) for mask in learned(*[sampled(seed) for seed in range(6)]).suggest(Space.of(8), 12)]
    assert min(costs) <= 3 and max(costs) >= 6


def test_the_order_of_sequences_makes_no_difference() -> None:
    archives = [sampled(seed) for seed in range(4)]
    found = {
        (tuple(memory.suggest(Space.of(8), 10)), memory.usefulness)
        for order in permutations(archives)
        for memory in [learned(*order)]
    }
    assert len(found) == 1


def test_useful_units_are_found() -> None:
    space = Space.of(6)
    rng = np.random.default_rng(0)
    kept = [frozenset(np.flatnonzero(row).tolist()) for row in rng.random((60, 6)) < 0.5]
    found = Archive(space, METRIC)
    found.add([outcome(space.full, 3.0)])
    found.add([outcome(space.mask(units), 3.0 * (2 in units) + 1.0 * (4 in units) - (0 in units)) for units in kept])
    useful = learned(found).usefulness
    assert useful[2] == pytest.approx(0.75, abs=0.05) and useful[4] == pytest.approx(0.25, abs=0.05)
    assert useful[0] == 0 and sum(useful) == pytest.approx(1)
    assert (2, 4) in learned(found).suggest(space, 12)


def test_nothing_learned_nothing_suggested() -> None:
    assert Memory().suggest(SPACE, 5) == []
    assert Memory().usefulness == ()
    alone = learned(archive([]))
    assert alone.suggest(SPACE, 5) == [] and alone.usefulness == ()


def test_hints_keep_the_most_influential_units() -> None:
    hints = Hints(influence=(0.9, 0.1, 0.5, 0.5, 0.2))
    assert [hints.keep(SPACE, count) for count in range(4)] == [(), (0,), (0, 2), (0, 2, 3)]
    fixed = Space(units=5, free=(0, 1, 3), costs=(1.0,) * 5)
    assert hints.keep(fixed, 2) == (0, 2, 3, 4)


def test_influence_proposes_one_mask_a_budget() -> None:
    problem = Problem(space=SPACE, archive=archive([]), seed=0, hints=Hints(influence=(0.9, 0.1, 0.5, 0.4, 0.2)))
    asked = {one.allocation for one in make("influence", problem).ask(20)}
    assert asked == {(), (0,), (0, 2), (0, 2, 3), (0, 2, 3, 4)}


def test_dp_proposes_the_masks_it_is_given() -> None:
    masks = {2.0: (0, 3), 3.0: (0, 1, 3), 5.0: (0, 1, 2, 3, 4)}
    problem = Problem(space=SPACE, archive=archive([]), seed=0, hints=Hints(masks=masks))
    assert {one.allocation for one in make("dp", problem).ask(20)} == {(0, 3), (0, 1, 3)}


@pytest.mark.parametrize("hints", [None, Hints(), Hints(influence=(0.5, 0.5))])
def test_what_is_missing_is_said(hints: Hints | None) -> None:
    problem = Problem(space=SPACE, archive=archive([]), seed=0, hints=hints)
    with pytest.raises(InputError, match=r"block influence of all 5 units, but was given [02]"):
        make("influence", problem)
    with pytest.raises(InputError, match="'dp' needs the masks"):
        make("dp", problem)


def test_transfer_begins_with_what_worked_elsewhere() -> None:
    memory = learned(archive([(0, 1), (0, 2, 3)]), archive([(0, 2, 3)]))
    problem = Problem(space=SPACE, archive=archive([]), seed=0, memory=memory)
    strategy = make("transfer", problem)
    asked = [one.allocation for one in strategy.ask(32)]
    assert asked == [mask for mask in memory.suggest(SPACE, 32) if mask != SPACE.full]
    assert strategy.ask(5) == [], "what surrounds the best of them is not known yet"
    strategy.tell([outcome(mask, float(mask == (0, 1))) for mask in asked])
    assert set(strategy.ask(2)) == {Proposal(allocation=(one,), family="transfer") for one in (0, 1)}
