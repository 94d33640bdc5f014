"""The unbiased sample: named families at every budget, then random masks, as many at each."""

from collections import Counter

import pytest

from oracle.allocations import early_exit, unified
from oracle.search import Archive, Problem, Space, make
from oracle.types import Outcome, Proposal


def exhaust(units: int, evaluations: int, seed: int, count: int = 16) -> list[Proposal]:
    """What is asked when every quality is the same."""
    space = Space.of(units)
    strategy = make("spread", Problem(space=space, archive=Archive(space, "quality"), seed=seed))
    asked: list[Proposal] = []
    while len(asked) < evaluations and not strategy.done:
        batch = strategy.ask(min(count, evaluations - len(asked)))
        strategy.tell([outcome(proposal) for proposal in batch])
        asked += batch
    return asked


def outcome(proposal: Proposal) -> Outcome:
    return Outcome(
        allocation=proposal.allocation,
        family=proposal.family,
        tokens=(1,),
        text="",
        finished=True,
        margin=1.0,
        quality={"quality": 1.0},
    )


@pytest.mark.parametrize("units", [12, 24, 30, 48])
def test_any_beginning_covers_low_and_high_budgets(units: int) -> None:
    costs = [len(proposal.allocation) for proposal in exhaust(units, 200, 0)]
    for length in range(12, len(costs) + 1):
        # The full model aside, every quarter of the budgets has been looked at.
        assert {min(3, 4 * cost // units) for cost in costs[1:length]} == {0, 1, 2, 3}, length


def test_the_fixed_families_are_there_at_every_budget() -> None:
    asked = {proposal.allocation: proposal.family for proposal in exhaust(30, 120, 0)}
    for budget in range(31):
        assert unified(30, budget) in asked
        assert early_exit(30, budget) in asked
    assert Counter(asked.values()).keys() == {"full", "unified", "early-exit", "random"}
    assert asked[unified(30, 10)] == "unified"
    assert asked[early_exit(30, 10)] == "early-exit"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("evaluations", [120, 200, 400])
def test_random_masks_are_drawn_evenly_over_the_budgets(seed: int, evaluations: int) -> None:
    asked = exhaust(30, evaluations, seed)
    counts = Counter(len(proposal.allocation) for proposal in asked if proposal.family == "random")
    # At the ends there are too few masks for the same number a budget.
    middle = [counts[budget] for budget in range(3, 28)]
    assert max(middle) - min(middle) <= 1
    assert sum(middle) > 0.75 * counts.total()


def test_what_is_asked_does_not_depend_on_how_many_are_asked_at_a_time() -> None:
    assert exhaust(8, 150, 3, count=4) == exhaust(8, 150, 3, count=64)


def test_a_small_model_is_enumerated() -> None:
    asked = exhaust(8, 2**8, 0)
    assert [Counter(len(one.allocation) for one in asked)[k] for k in range(9)] == [1, 8, 28, 56, 70, 56, 28, 8, 1]
