"""Methods for one mask: on synthetic objectives with a known optimum, by exhaustive enumeration."""

from collections.abc import Sequence as Seq
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle.allocations import unified
from oracle.errors import InputError
from oracle.search.mask_search import METHODS, MaskSearch, _mutated
from oracle.static.plan import METHOD_NAMES
from oracle.types import Allocation

U, N = 9, 12


class Landscape:
    """Quality with weights per unit and pairwise interactions, different per sequence; counts what is evaluated."""

    def __init__(self, seed: int, interactions: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self.weight_U = rng.gamma(1.0, size=U)
        self.pair_UU = interactions * np.triu(rng.normal(size=(U, U)), 1)
        self.own_NU = 0.2 * rng.normal(size=(N, U))
        self.seen: list[tuple[Allocation, int]] = []

    def __call__(self, masks: Seq[Allocation], some: NDArray[np.int64]) -> NDArray[np.float64]:
        self.seen += [(mask, place) for mask in masks for place in some.tolist()]
        rows_MU = np.array([[float(unit in mask) for unit in range(U)] for mask in masks])
        pairs_M = np.einsum("mu,uv,mv->m", rows_MU, self.pair_UU, rows_MU)
        return (rows_MU @ self.weight_U + pairs_M)[:, None] + rows_MU @ self.own_NU[some].T


def searched(landscape: Landscape, costs: Seq[float] = (1.0,) * U, **changes: object) -> MaskSearch:
    influence = tuple(landscape.weight_U.tolist())
    return MaskSearch(costs=costs, sequences=N, objective=landscape, influence=influence, **changes)


def optimum(search: MaskSearch, budget: float) -> float:
    masks = [mask for count in range(U + 1) for mask in combinations(range(U), count) if search.fits(mask, budget)]
    return float(search.means(masks).max())


def test_the_names_for_help_are_the_methods() -> None:
    assert tuple(METHODS) == METHOD_NAMES


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("costs", [(1.0,) * U, tuple(np.linspace(0.5, 2.0, U))])
def test_masks_are_within_the_budget_and_reproducible(name: str, costs: tuple[float, ...]) -> None:
    budgets = [6.0, 3.0]
    masks = METHODS[name](searched(Landscape(0), costs), budgets, 8)
    assert set(masks) == set(budgets)
    for budget, mask in masks.items():
        assert sum(costs[unit] for unit in mask) <= budget + 1e-9 and mask == tuple(sorted(set(mask)))
    assert METHODS[name](searched(Landscape(0), costs), budgets, 8) == masks


@pytest.mark.parametrize("name", ["evolution", "surrogate"])
def test_searches_find_the_best_mask_there_is(name: str) -> None:
    found = 0
    for seed in range(10):
        search = searched(Landscape(seed), seed=seed)
        mask = METHODS[name](search, [4.0], 40)[4.0]
        found += float(search.means([mask])[0]) >= optimum(searched(Landscape(seed)), 4.0) - 1e-9
    assert found >= 8


def test_greedy_is_optimal_without_interactions_and_takes_one_path() -> None:
    landscape = Landscape(3, interactions=0.0)
    search = searched(landscape)
    masks = METHODS["greedy"](search, [3.0, 6.0], 0)
    for budget, mask in masks.items():
        assert float(search.means([mask])[0]) == pytest.approx(optimum(searched(landscape), budget))
    assert set(masks[3.0]) < set(masks[6.0])


def test_greedy_weighs_what_a_unit_saves() -> None:
    """Two units of equal loss: the one that saves more goes first."""
    landscape = Landscape(0, interactions=0.0)
    landscape.weight_U[:], landscape.own_NU[:] = 1.0, 0.0
    costs = (1.0,) * (U - 1) + (3.0,)
    assert METHODS["greedy"](searched(landscape, costs), [U - 1.0], 0)[U - 1.0] == tuple(range(U - 1))


def test_the_baselines_are_the_published_orders() -> None:
    landscape = Landscape(1)
    search = searched(landscape)
    kept = METHODS["influence"](search, [4.0], 0)[4.0]
    assert set(kept) == set(np.argsort(-landscape.weight_U)[:4].tolist())
    assert METHODS["unified"](search, [4.0], 0)[4.0] == unified(U, 4)
    assert not landscape.seen, "neither looks at the objective"
    parts = MaskSearch(costs=(1.0,) * 8, sequences=N, objective=landscape, influence=(1.0,) * 8, parts=2)
    assert METHODS["unified"](parts, [4.0], 0)[4.0] == (0, 1, 6, 7)


def test_nothing_is_evaluated_twice() -> None:
    landscape = Landscape(2)
    search = searched(landscape)
    for method in METHODS.values():
        method(search, [6.0, 4.0], 12)
    assert len(landscape.seen) == len(set(landscape.seen)) == search.evaluations


def test_influences_of_other_units_are_refused() -> None:
    with pytest.raises(InputError, match="as many influences as units"):
        MaskSearch(costs=(1.0, 1.0), sequences=2, objective=Landscape(0), influence=(1.0,))


def test_evolution_never_loses_the_best_mask_that_it_measured() -> None:
    for seed in range(30):
        landscape = Landscape(seed)
        landscape.own_NU *= 10  # small samples mislead
        search = searched(landscape, seed=seed)
        [mask] = METHODS["evolution"](search, [4.0], 16).values()
        _, means = search.known()
        assert float(search.means([mask])[0]) >= means.max() - 1e-9


def test_evolution_switches_attention_for_attention() -> None:
    parts = MaskSearch(costs=(1.0,) * 12, sequences=N, objective=Landscape(0), influence=(0.0,) * 12, parts=2)
    rng, parent = np.random.default_rng(0), (0, 1, 2, 3, 4, 5, 6, 8)
    children = [_mutated(parts, parent, 8.0, rng) for _ in range(300)]
    assert {sum(unit % 2 == 0 for unit in child) for child in children} == {5}
    assert len(set(children)) > 20 and all(len(child) == 8 for child in children)
