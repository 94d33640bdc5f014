"""What every registered strategy keeps to."""

from collections.abc import Callable

import pytest

from oracle.errors import InputError
from oracle.search import STRATEGIES, Space, Strategy, make
from oracle.testing.landscapes import additive, plateaus
from oracle.testing.strategies import CHECKS, FIXED, archive, masks, problem, search
from oracle.types import Outcome, Proposal


@pytest.fixture(params=STRATEGIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


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


FAMILIES = {"families": {"unified", "early-exit"}, "spread": {"unified", "early-exit", "random"}}
"""Families of strategies that draw from several."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_shipped_contract(name: str, check: Callable[[type[Strategy]], None]) -> None:
    check(STRATEGIES[name])


def test_families_are_named(name: str) -> None:
    asked = search(make(name, problem(plateaus(3, 5))), plateaus(3, 5).evaluate)
    assert {proposal.family for proposal in asked[1:]} <= FAMILIES.get(name, {name})


def test_leaves_exhausted_budgets_out(name: str) -> None:
    landscape = additive(2, 5)
    given = problem(landscape, known=1)
    for count in (2, 3):
        every = [Proposal(allocation=mask, family="all") for mask in given.space.masks(count)]
        given.archive.add(one for one in landscape.evaluate(every) if given.archive.qualifies(one))
        given.archive.exhaust(count)
    asked = search(make(name, given), landscape.evaluate)
    assert not {2, 3} & {len(mask) for mask in masks(asked)}


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
