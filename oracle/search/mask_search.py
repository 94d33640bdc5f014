"""Methods that choose one mask for many sequences within a budget, given an objective.

No method needs the model: an objective returns one value per mask and sequence, higher is better, and the mean over the
training sequences is maximised. All values are kept, so that methods share what they evaluated.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from oracle.allocations import unified
from oracle.errors import InputError
from oracle.search.surrogate import Surrogate
from oracle.types import Allocation

__all__ = ["METHODS", "MaskSearch", "Objective"]

Floats = NDArray[np.float64]

Objective = Callable[[Seq[Allocation], NDArray[np.int64]], Floats]
"""Values (M N) of masks on the training sequences of the given indices."""

SLACK = 1e-9
"""Costs are sums of floats: a mask within this of a budget is within the budget."""

OFFSPRING = 16
"""Mutated masks per generation of the evolution."""

STAGES = ((1 / 6, 4), (1 / 2, 2), (1.0, 1))
"""Per selection round of the evolution: share of the training sequences, and number of survivors."""

BATCH = 8
"""Masks that the surrogate proposes at a time."""

POOL = 192
"""Random masks considered by the surrogate per batch, besides the neighbours of the best ones."""


class MaskSearch:
    """The values of masks on the training sequences, computed on demand and kept.

    Args:
        costs: cost of each unit, U of them.
        sequences: N, the number of training sequences.
        objective: computes values.
        influence: block influence per unit; the order of the baseline `influence`.
        parts: units per layer: 1, or 2 where attention and MLP are separate units.
        seed: seed of every random choice.

    Attributes:
        evaluations: (mask, sequence) pairs evaluated so far.
    """

    def __init__(
        self,
        *,
        costs: Seq[float],
        sequences: int,
        objective: Objective,
        influence: Seq[float],
        parts: int = 1,
        seed: int = 0,
    ) -> None:
        if len(influence) != len(costs):
            raise InputError(f"as many influences as units are required: {len(costs)}, not {len(influence)}")
        self.costs = np.asarray(costs, dtype=np.float64)
        self.sequences = sequences
        self.influence = tuple(influence)
        self.parts = parts
        self.seed = seed
        self.evaluations = 0
        self._objective = objective
        self._values: dict[Allocation, Floats] = {}

    @property
    def units(self) -> int:
        """U, the number of units."""
        return len(self.costs)

    def cost(self, mask: Allocation) -> float:
        """Cost of a mask."""
        return float(self.costs[list(mask)].sum())

    def fits(self, mask: Allocation, budget: float) -> bool:
        """Whether a mask costs no more than a budget."""
        return self.cost(mask) <= budget + SLACK

    def means(self, masks: Seq[Allocation], some: NDArray[np.int64] | None = None) -> Floats:
        """Mean value of each mask (M) over some training sequences, default all; evaluates only what is missing."""
        some = np.arange(self.sequences) if some is None else some
        for mask in masks:
            self._values.setdefault(mask, np.full(self.sequences, np.nan))
        missing: dict[tuple[int, ...], list[Allocation]] = {}
        for mask in dict.fromkeys(masks):
            missing.setdefault(tuple(some[np.isnan(self._values[mask][some])].tolist()), []).append(mask)
        for places, open_masks in missing.items():
            if places:
                found_MN = self._objective(open_masks, np.array(places))
                self.evaluations += found_MN.size
                for mask, values_N in zip(open_masks, found_MN, strict=True):
                    self._values[mask][list(places)] = values_N
        return np.array([self._values[mask][some].mean() for mask in masks])

    def known(self) -> tuple[list[Allocation], Floats]:
        """The masks evaluated on every training sequence, and their means."""
        whole = [mask for mask, values_N in sorted(self._values.items()) if not np.isnan(values_N).any()]
        return whole, np.array([self._values[mask].mean() for mask in whole])

    def best(self, masks: Seq[Allocation]) -> Allocation:
        """The mask of highest mean; of equal ones the cheapest."""
        means_M = self.means(masks)
        return min(zip(masks, means_M, strict=True), key=lambda pair: (-pair[1], self.cost(pair[0]), pair[0]))[0]

    def random(self, budget: float, rng: np.random.Generator) -> Allocation:
        """A random mask filled up to the budget."""
        return self.filled((), budget, rng)

    def filled(self, kept: Seq[int], budget: float, rng: np.random.Generator) -> Allocation:
        """A mask with random units added while they fit."""
        chosen = set(kept)
        for unit in rng.permutation(self.units).tolist():
            if unit not in chosen and self.fits((*chosen, unit), budget):
                chosen.add(unit)
        return tuple(sorted(chosen))


def by_influence(search: MaskSearch, budgets: Seq[float], evaluations: int) -> dict[float, Allocation]:
    """The units of highest block influence (ShortGPT, arXiv 2403.03853)."""
    order = sorted(range(search.units), key=lambda unit: (search.influence[unit], unit))
    return {budget: _dropped(search, order, budget) for budget in budgets}


def by_spacing(search: MaskSearch, budgets: Seq[float], evaluations: int) -> dict[float, Allocation]:
    """Unified skipping (arXiv 2404.06954): layers at equal intervals, and the last, as many as fit the budget."""
    layers, found = search.units // search.parts, {}
    for budget in budgets:
        masks = (
            tuple(layer * search.parts + part for layer in unified(layers, count) for part in range(search.parts))
            for count in range(layers, -1, -1)
        )
        found[budget] = next(mask for mask in masks if search.fits(mask, budget))
    return found


def greedy(search: MaskSearch, budgets: Seq[float], evaluations: int) -> dict[float, Allocation]:
    """Drops one unit at a time: the one whose loss per cost saved is least. One path serves all budgets."""
    mask, found = tuple(range(search.units)), {}
    value = float(search.means([mask])[0])
    for budget in sorted(budgets, reverse=True):
        while not search.fits(mask, budget):
            shorter = [mask[:place] + mask[place + 1 :] for place in range(len(mask))]
            means_M = search.means(shorter)
            saved_M = np.array([search.costs[unit] for unit in mask])
            place = int(np.argmin((value - means_M) / np.maximum(saved_M, SLACK)))
            mask, value = shorter[place], float(means_M[place])
        found[budget] = mask
    return found


def evolution(search: MaskSearch, budgets: Seq[float], evaluations: int) -> dict[float, Allocation]:
    """EvoPress (arXiv 2410.14649): one parent, mutations that switch units, selection on growing samples.

    `evaluations` counts masks on the whole training part, per budget; the early rounds use fewer sequences. Where
    attention and MLP are separate units, the starts differ in how many of each they keep (the released code removes as
    many of one as of the other).
    """
    found = {}
    for budget in budgets:
        rng = np.random.default_rng([search.seed, 1, round(1e6 * budget)])
        order = rng.permutation(search.sequences)
        starts = [search.random(budget, rng) for _ in range(OFFSPRING)]
        parent, limit = _select(search, starts, order), evaluations * search.sequences
        before = search.evaluations
        for _ in range(evaluations):
            children = [_mutated(search, parent, budget, rng) for _ in range(OFFSPRING)]
            parent = _select(search, children, order, parent)
            if search.evaluations - before >= limit:
                break
        found[budget] = parent
    return found


def surrogate(search: MaskSearch, budgets: Seq[float], evaluations: int) -> dict[float, Allocation]:
    """A Gaussian process over masks proposes those most likely to beat the best one; it starts from all known values.

    The pool per batch: masks that differ from the best ones in one or two switches, and random ones. `evaluations`
    counts new masks on the whole training part, per budget; what other methods evaluated before is known already.
    """
    starts = [by_influence(search, budgets, 0), by_spacing(search, budgets, 0)]
    found = {}
    for budget in budgets:
        rng = np.random.default_rng([search.seed, 2, round(1e6 * budget)])
        search.means([tuple(range(search.units)), *(masks[budget] for masks in starts)])
        search.means([search.random(budget, rng) for _ in range(BATCH)])
        for _ in range(max(1, evaluations // BATCH)):
            masks, means_M = search.known()
            within = [place for place, mask in enumerate(masks) if search.fits(mask, budget)]
            ranked = sorted(within, key=lambda place: (-means_M[place], masks[place]))
            pool = _around(search, [masks[place] for place in ranked[:4]], budget, set(masks), rng)
            if not pool:
                break
            best = means_M[ranked[0]]
            model = Surrogate(_rows(masks, search.units), means_M, float(best), _worth(search))
            chosen = model.choose(_rows(pool, search.units), np.zeros((min(BATCH, len(pool)), len(pool))))
            search.means([pool[place] for place in chosen])
        masks, _ = search.known()
        found[budget] = search.best([mask for mask in masks if search.fits(mask, budget)])
    return found


Method = Callable[[MaskSearch, Seq[float], int], dict[float, Allocation]]

METHODS: dict[str, Method] = {
    "unified": by_spacing,
    "influence": by_influence,
    "greedy": greedy,
    "evolution": evolution,
    "surrogate": surrogate,
}
"""Name to method: (search, budgets, evaluations per budget) to one mask per budget. In the order in which they run."""


def _dropped(search: MaskSearch, order: Seq[int], budget: float) -> Allocation:
    """The full mask without the first units of an order, as few as the budget asks for."""
    mask = tuple(range(search.units))
    for unit in order:
        if search.fits(mask, budget):
            break
        mask = tuple(one for one in mask if one != unit)
    return mask


def _select(
    search: MaskSearch, masks: Seq[Allocation], order: NDArray[np.int64], parent: Allocation | None = None
) -> Allocation:
    """The best of some masks, by rounds on growing samples; ties go to the first.

    A parent takes part in the last round only, as released, so that no small sample can lose it.
    """
    survivors = list(dict.fromkeys(masks))
    for share, count in STAGES:
        if parent is not None and count == 1:
            survivors = list(dict.fromkeys([parent, *survivors]))
        some = np.sort(order[: max(1, round(share * search.sequences))])
        means_M = search.means(survivors, some)
        survivors = [survivors[place] for place in np.argsort(-means_M, kind="stable")[:count]]
    return survivors[0]


def _mutated(search: MaskSearch, mask: Allocation, budget: float, rng: np.random.Generator) -> Allocation:
    """Switches up to three units (the smaller of two draws, as released), within the budget.

    Attention gives way to attention and MLP to MLP, as released, as long as there is another of the kind.
    """
    kept, lost = list(mask), [unit for unit in range(search.units) if unit not in mask]
    switches = min(rng.integers(1, 4), rng.integers(1, 4), len(kept), len(lost))
    for unit in rng.permutation(lost)[:switches].tolist():
        kept.append(unit)
        while not search.fits(tuple(kept), budget) and len(kept) > 1:
            others = [one for one in kept if one != unit]
            of_kind = [one for one in others if (one - unit) % search.parts == 0]
            kept.remove(int(rng.choice(of_kind or others)))
    return search.filled(kept, budget, rng)


def _around(
    search: MaskSearch, masks: Seq[Allocation], budget: float, known: set[Allocation], rng: np.random.Generator
) -> list[Allocation]:
    """Unknown masks within the budget: one and two switches from the given ones, and random ones."""
    found: dict[Allocation, None] = {}
    for mask in masks:
        kept, lost = set(mask), [unit for unit in range(search.units) if unit not in mask]
        for out, into in product(mask, lost):
            found[search.filled(sorted(kept - {out} | {into}), budget, rng)] = None
        two = list(product(combinations(mask, 2), combinations(lost, 2)))
        for place in rng.permutation(len(two))[:POOL].tolist():
            outs, intos = two[place]
            found[search.filled(sorted(kept - set(outs) | set(intos)), budget, rng)] = None
    for _ in range(POOL):
        found[search.random(budget, rng)] = None
    return [mask for mask in found if mask not in known and search.fits(mask, budget)]


def _rows(masks: Seq[Allocation], units: int) -> NDArray[np.bool_]:
    rows_MU = np.zeros((len(masks), units), dtype=np.bool_)
    for row, mask in enumerate(masks):
        rows_MU[row, list(mask)] = True
    return rows_MU


def _worth(search: MaskSearch) -> Floats:
    """What each unit may be worth: all the same, or as block influence says."""
    opinions = [np.ones(search.units), np.clip(np.array(search.influence), 0, None)]
    return np.array([one / one.sum() for one in opinions if one.sum() > 0])
