"""What every registered strategy keeps to."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from search.landscapes import Landscape, additive, pairs, plateaus

from oracle.errors import InputError
from oracle.search import STRATEGIES, Archive, Hints, Memory, Problem, Space, Strategy, make
from oracle.types import Allocation, Outcome, Proposal

FIXED = Space(units=7, free=(1, 2, 4, 5, 6), costs=(1.0,) * 7)
UNEVEN = Space(units=5, free=(0, 1, 3, 4), costs=(2.0, 0.5, 1.0, 0.0, 3.0))

FAMILIES = {"families": {"unified", "early-exit"}, "spread": {"unified", "early-exit", "random"}}

Evaluate = Callable[[list[Proposal]], list[Outcome]]


@pytest.fixture(params=STRATEGIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def problem(landscape: Landscape, space: Space | None = None, seed: int = 0, known: int = 0) -> Problem:
    """A problem with all kinds of guidance, and a number of known masks in its archive."""
    space = space or landscape.space
    memory = Memory()
    for other in (additive(11, landscape.units), pairs(12, landscape.units)):
        memory.learn(archive(other, space, 12))
    influence = tuple(float(unit * 7 % 5) for unit in range(space.units))
    masks = {space.cost(mask): mask for mask in [space.masks(count)[0] for count in range(len(space.free) + 1)]}
    return Problem(
        space=space,
        archive=archive(landscape, space, known),
        seed=seed,
        memory=memory,
        hints=Hints(influence=influence, masks=masks),
    )


def archive(landscape: Landscape, space: Space, known: int) -> Archive:
    """The full allocation and others spread over the space, `known` in all."""
    found = Archive(space, "quality", landscape.tolerance)
    masks = [mask for count in range(len(space.free), -1, -1) for mask in space.masks(count)]
    some = masks[:: max(1, len(masks) // max(1, known))][:known]
    found.add(landscape.evaluate([Proposal(allocation=mask, family="random") for mask in some]))
    return found


def search(strategy: Strategy, evaluate: Evaluate, count: int = 7, most: int = 400) -> list[Proposal]:
    """Everything that a strategy asks, told in reverse order."""
    asked: list[Proposal] = []
    while not strategy.done and len(asked) < most:
        batch = strategy.ask(count)
        assert 0 < len(batch) <= count, "all outcomes are told, so that there is nothing to wait for"
        strategy.tell(evaluate(batch)[::-1])
        asked += batch
    return asked


def masks(proposals: list[Proposal]) -> list[Allocation]:
    return [proposal.allocation for proposal in proposals]


def test_names_and_hints() -> None:
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert strategy.hint and "\n" not in strategy.hint
    assert next(iter(STRATEGIES)) == "auto"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown strategy 'gredy': .*auto, .*nearest: 'greedy'"):
        make("gredy", additive(0).problem())
    with pytest.raises(InputError) as caught:
        make("xyz", additive(0).problem())
    assert "nearest" not in str(caught.value)


@pytest.mark.parametrize(("space", "count"), [(None, 1), (None, 512), (FIXED, 7), (UNEVEN, 5)])
def test_new_masks_of_the_space_and_an_end(name: str, space: Space | None, count: int) -> None:
    landscape = plateaus(3, 5 if space is None else space.units)
    given = problem(landscape, space)
    strategy = make(name, given)
    asked = search(strategy, landscape.evaluate, count)
    assert asked[0] == Proposal(allocation=given.space.full, family="full")
    assert len(set(masks(asked))) == len(asked) == len(given.archive) <= 2 ** len(given.space.free)
    for proposal in asked[1:]:
        assert given.archive.free_count(proposal.allocation) is not None
        assert proposal.family in FAMILIES.get(name, {name})
    assert strategy.done and strategy.ask(10) == []


def test_the_full_allocation_comes_first_and_alone(name: str) -> None:
    landscape = additive(0)
    strategy = make(name, problem(landscape))
    assert not strategy.done and strategy.ask(0) == []
    first = strategy.ask(20)
    assert first == [Proposal(allocation=landscape.space.full, family="full")]
    assert strategy.ask(20) == [] and not strategy.done, "the threshold is not known"
    strategy.tell(landscape.evaluate(first))
    assert strategy.ask(20)


def test_nothing_is_proposed_twice_while_outcomes_are_awaited(name: str) -> None:
    landscape = additive(1)
    strategy = make(name, problem(landscape, known=1))
    batches = [strategy.ask(5) for _ in range(4)]
    asked = [one for batch in batches for one in batch]
    assert asked and len(set(masks(asked))) == len(asked)
    assert not strategy.done
    strategy.tell(landscape.evaluate(batches[0]))
    later = strategy.ask(20)
    assert not set(masks(later)) & set(masks(asked))


def test_goes_on_from_an_archive(name: str) -> None:
    landscape = plateaus(1, 5)
    given = problem(landscape, known=12)
    known = set(given.archive.outcomes)
    asked = search(make(name, given), landscape.evaluate)
    assert not known & set(masks(asked))
    assert "full" not in {proposal.family for proposal in asked}


def test_leaves_exhausted_budgets_out(name: str) -> None:
    landscape = additive(2, 5)
    given = problem(landscape, known=1)
    for count in (2, 3):
        every = [Proposal(allocation=mask, family="all") for mask in given.space.masks(count)]
        given.archive.add(one for one in landscape.evaluate(every) if given.archive.qualifies(one))
        given.archive.exhaust(count)
    asked = search(make(name, given), landscape.evaluate)
    assert not {2, 3} & {len(mask) for mask in masks(asked)}


@pytest.mark.parametrize("count", [3, 30])
def test_equal_seeds_give_equal_searches(name: str, count: int) -> None:
    landscape = pairs(4, 9)
    first, again = (search(make(name, problem(landscape)), landscape.evaluate, count, 40) for _ in range(2))
    assert first == again


def test_the_order_of_outcomes_makes_no_difference(name: str) -> None:
    landscape = pairs(5, 9)
    backwards = search(make(name, problem(landscape)), landscape.evaluate, 16, 40)
    forwards = search(make(name, problem(landscape)), lambda batch: landscape.evaluate(batch)[::-1], 16, 40)
    assert forwards == backwards


def test_bears_dropped_outcomes(name: str) -> None:
    landscape = additive(6, 5)
    given = problem(landscape)

    def evaluate(batch: list[Proposal]) -> list[Outcome]:
        least = landscape.evaluate([Proposal(allocation=landscape.space.full, family="full")])[0].quality["quality"]
        return [
            one if one.quality["quality"] >= least - landscape.tolerance else replace(one, dropped=True, quality={})
            for one in landscape.evaluate(batch)
        ]

    asked = search(make(name, given), evaluate)
    assert len(given.archive) == len(asked) > 1
    assert given.archive.upper is not None and given.archive.upper.cost >= landscape.optimum


@pytest.mark.parametrize("space", [Space.of(1), Space(units=3, free=(), costs=(1.0,) * 3)])
def test_next_to_no_space(name: str, space: Space) -> None:
    landscape = additive(0, space.units)
    given = problem(landscape, space)
    asked = search(make(name, given), landscape.evaluate)
    assert 1 <= len(asked) <= 2 ** len(space.free)


@pytest.mark.parametrize("name", ["auto", "by-budget", "exhaustive", "local", "transfer", "random"])
@pytest.mark.parametrize("space", [None, FIXED])
def test_proves_the_minimal_budget_of_a_small_space(name: str, space: Space | None) -> None:
    for seed in range(6):
        landscape = plateaus(seed, 6 if space is None else space.units)
        given = problem(landscape, space)
        search(make(name, given), landscape.evaluate, 4)
        truth = archive(landscape, given.space, 2**landscape.units)
        assert given.archive.certified
        assert given.archive.upper is not None and truth.upper is not None
        assert given.archive.lower == given.archive.upper.cost == truth.upper.cost


@pytest.mark.parametrize("name", ["auto", "by-budget", "local"])
def test_nothing_is_asked_once_the_minimal_budget_is_proven(name: str) -> None:
    landscape = additive(0, 8)
    given = problem(landscape, known=1)
    empty = Outcome(
        allocation=(), family="random", tokens=(), text="", finished=True, margin=1.0, quality={"quality": 1}
    )
    given.archive.add([empty])
    strategy = make(name, given)
    assert strategy.done and strategy.ask(8) == []
