"""Named allocations: the published examples, and what holds at every depth and budget."""

from itertools import combinations

import numpy as np
import pytest

from oracle.allocations import early_exit, full, random_mask, unified
from oracle.errors import InputError
from oracle.types import Allocation

EVERY = [(layers, budget) for layers in range(1, 41) for budget in range(layers + 1)]


def draw(layers: int, budget: int) -> Allocation:
    return random_mask(layers, budget, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("layers", "budget", "kept"),
    [
        # Liu et al. 2024: L = 24 at twice and at five times the speed, L = 32 at three times.
        (24, 12, (*range(0, 21, 2), 23)),
        (24, 4, (0, 8, 16, 23)),
        (32, 10, (*range(0, 25, 3), 31)),
        (5, 5, (0, 1, 2, 3, 4)),
        (5, 2, (0, 4)),
        # The published formula divides by zero here.
        (5, 1, (0,)),
        (5, 0, ()),
        (1, 1, (0,)),
        (1, 0, ()),
    ],
)
def test_unified_skipping_keeps_the_published_layers(layers: int, budget: int, kept: Allocation) -> None:
    assert unified(layers, budget) == kept


@pytest.mark.parametrize("family", [unified, early_exit, draw])
def test_every_budget_at_every_depth_gives_that_many_rising_layers(family) -> None:
    for layers, budget in EVERY:
        allocation = family(layers, budget)
        assert len(allocation) == budget, (layers, budget)
        assert list(allocation) == sorted(set(allocation) & set(range(layers))), (layers, budget)
        assert all(type(layer) is int for layer in allocation), "numpy integers do not survive JSON"


def test_unified_skipping_keeps_the_first_and_the_last_layer() -> None:
    for layers, budget in EVERY:
        if budget >= 2:
            allocation = unified(layers, budget)
            assert (allocation[0], allocation[-1]) == (0, layers - 1), (layers, budget)


def test_unified_skipping_leaves_no_wide_gap_but_the_last() -> None:
    for layers, budget in EVERY:
        if budget >= 3:
            gaps = np.diff(unified(layers, budget)[:-1])
            assert set(gaps.tolist()) == {layers // (budget - 1)}, (layers, budget)


def test_early_exit_keeps_the_first_layers() -> None:
    assert early_exit(6, 4) == (0, 1, 2, 3)
    assert early_exit(6, 0) == ()


def test_the_whole_budget_is_the_full_model() -> None:
    for layers in range(1, 41):
        everything = tuple(range(layers))
        assert full(layers) == unified(layers, layers) == early_exit(layers, layers) == draw(layers, layers)
        assert full(layers) == everything


def test_random_masks_are_those_of_their_generator() -> None:
    first, second, other = (np.random.default_rng(seed) for seed in (1, 1, 2))
    drawn = [random_mask(30, 15, first) for _ in range(20)]
    assert drawn == [random_mask(30, 15, second) for _ in range(20)]
    assert drawn != [random_mask(30, 15, other) for _ in range(20)]
    assert len(set(drawn)) == 20


def test_random_masks_are_uniform() -> None:
    rng = np.random.default_rng(0)
    draws = 20_000
    counts = dict.fromkeys(combinations(range(6), 3), 0)
    for _ in range(draws):
        counts[random_mask(6, 3, rng)] += 1
    # 20 masks: chi-squared with 19 degrees of freedom exceeds 43.8 once in a thousand seeds.
    expected = draws / len(counts)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 43.8


@pytest.mark.parametrize("family", [unified, early_exit, draw])
@pytest.mark.parametrize("budget", [-1, 13])
def test_a_budget_out_of_range_is_refused(family, budget: int) -> None:
    with pytest.raises(InputError, match=f"a budget of 0 to 12 layers is required, but {budget} was given"):
        family(12, budget)
