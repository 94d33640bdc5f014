"""The contract of a search strategy, over every strategy there is."""

from collections import Counter
from collections.abc import Callable

import pytest

from oracle.families import early_exit, full, unified
from oracle.search import Spread, Strategy
from oracle.types import Outcome, Proposal

STRATEGIES: dict[str, Callable[[int, int, int], Strategy]] = {"spread": Spread}
"""Built from layers, evaluations, seed."""


@pytest.fixture(params=STRATEGIES)
def build(request: pytest.FixtureRequest) -> Callable[[int, int, int], Strategy]:
    return STRATEGIES[request.param]


def outcome(proposal: Proposal) -> Outcome:
    """What a model whose later layers matter most might answer."""
    return Outcome(
        allocation=proposal.allocation,
        family=proposal.family,
        tokens=(),
        text="",
        finished=True,
        margin=1.0,
        quality={"rougeL": sum(proposal.allocation) / 1000},
    )


def exhaust(strategy: Strategy, count: int = 7) -> list[Proposal]:
    """Everything that a strategy asks, told in reverse order."""
    asked: list[Proposal] = []
    while not strategy.done:
        batch = strategy.ask(count)
        assert 0 < len(batch) <= count, "all outcomes are told, so that there is nothing to wait for"
        strategy.tell([outcome(proposal) for proposal in reversed(batch)])
        asked += batch
        assert len(asked) < 10_000, "a search must end"
    return asked


SIZES = [(1, 5), (2, 3), (5, 1), (5, 20), (5, 32), (5, 100), (12, 40), (30, 120), (48, 64)]


@pytest.mark.parametrize(("layers", "evaluations"), SIZES)
def test_as_many_different_allocations_as_wanted_and_possible(build, layers: int, evaluations: int) -> None:
    asked = exhaust(build(layers, evaluations, 0))
    assert len(asked) == min(evaluations, 2**layers)
    assert len({proposal.allocation for proposal in asked}) == len(asked)


@pytest.mark.parametrize(("layers", "evaluations"), SIZES)
def test_the_full_model_comes_first(build, layers: int, evaluations: int) -> None:
    first, *others = exhaust(build(layers, evaluations, 0))
    assert first == Proposal(allocation=full(layers), family="full")
    assert "full" not in {proposal.family for proposal in others}


def test_allocations_are_skip_masks_of_the_model(build) -> None:
    for proposal in exhaust(build(12, 200, 0)):
        assert list(proposal.allocation) == sorted(set(proposal.allocation) & set(range(12)))
        assert proposal.family in {"full", "unified", "early-exit", "random"}


@pytest.mark.parametrize("count", [1, 3, 40, 1000])
def test_how_many_are_asked_at_a_time_changes_nothing(build, count: int) -> None:
    assert exhaust(build(12, 40, 5), count) == exhaust(build(12, 40, 5))


def test_nothing_is_asked_once_it_is_done(build) -> None:
    strategy = build(5, 8, 0)
    assert not strategy.done
    assert strategy.ask(0) == []
    exhaust(strategy)
    assert strategy.done
    assert strategy.ask(10) == []


def test_equal_seeds_give_equal_plans_and_other_seeds_other_random_masks(build) -> None:
    first, again, other = (exhaust(build(30, 150, seed)) for seed in (3, 3, 4))
    assert first == again
    fixed, random = ([p for p in first if (p.family == "random") == drawn] for drawn in (False, True))
    assert [p for p in other if p.family != "random"] == fixed
    others = {p.allocation for p in other if p.family == "random"}
    assert random and len(others & {p.allocation for p in random}) < 0.1 * len(random)


@pytest.mark.parametrize("layers", [12, 24, 30, 48])
def test_any_beginning_covers_low_and_high_budgets(build, layers: int) -> None:
    costs = [len(proposal.allocation) for proposal in exhaust(build(layers, 200, 0))]
    for length in range(12, len(costs) + 1):
        # The full model aside, every quarter of the budgets has been looked at.
        assert {min(3, 4 * cost // layers) for cost in costs[1:length]} == {0, 1, 2, 3}, length


def test_spread_has_the_fixed_families_at_every_budget() -> None:
    asked = {proposal.allocation: proposal.family for proposal in exhaust(Spread(30, 120, 0))}
    for budget in range(31):
        assert unified(30, budget) in asked
        assert early_exit(30, budget) in asked
    assert Counter(asked.values()).keys() == {"full", "unified", "early-exit", "random"}
    assert asked[unified(30, 10)] == "unified"
    assert asked[early_exit(30, 10)] == "early-exit"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("evaluations", [120, 200, 400])
def test_spread_draws_random_masks_evenly_over_the_budgets(seed: int, evaluations: int) -> None:
    asked = exhaust(Spread(30, evaluations, seed))
    counts = Counter(len(proposal.allocation) for proposal in asked if proposal.family == "random")
    # At the ends there are too few masks for the same number a budget.
    middle = [counts[budget] for budget in range(3, 28)]
    assert max(middle) - min(middle) <= 1
    assert sum(middle) > 0.75 * counts.total()


def test_spread_enumerates_a_small_model() -> None:
    asked = exhaust(Spread(8, 2**8, 0))
    assert Counter(len(proposal.allocation) for proposal in asked) == {
        0: 1,
        1: 8,
        2: 28,
        3: 56,
        4: 70,
        5: 56,
        6: 28,
        7: 8,
        8: 1,
    }
