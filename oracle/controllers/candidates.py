"""Candidate masks for all sequences, and a small code book of them.

Nothing here uses the masks that a search chose: an adaptive search starts from what worked on other sequences, so what
it evaluated on one sequence depends on the references of all of them, those held out for evaluation included.
"""

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from oracle.allocations import random_mask, unified
from oracle.search import Hints, Memory, Space
from oracle.search.archive import Archive
from oracle.types import Allocation, Outcome

__all__ = ["candidate_masks", "code_book", "probe_masks"]

RANDOM = 8
"""Number of random probe masks per budget."""


def probe_masks(influence: Seq[float], budgets: Seq[int], seed: int) -> list[Allocation]:
    """Masks to evaluate on the training sequences, chosen without any reference, by rising cost.

    The empty mask and the full model; per budget unified skipping, the units of highest block influence, and random
    masks, which depend on the seed alone.

    Args:
        influence: block influence per unit.
        budgets: numbers of units.
        seed: seed of the random masks.
    """
    space, rng = Space.of(len(influence)), np.random.default_rng(seed)
    masks = {(), space.full}
    for budget in budgets:
        masks.update(random_mask(space.units, budget, rng) for _ in range(RANDOM))
        masks |= {unified(space.units, budget), Hints(influence=tuple(influence)).keep(space, budget)}
    return sorted(masks, key=_rank)


def candidate_masks(
    histories: Seq[Seq[Outcome]],
    budgets: Seq[int],
    *,
    units: int,
    metric: str,
    tolerance: float,
) -> list[Allocation]:
    """The masks of some outcomes, and those that the outcomes suggest, by rising cost.

    Per budget: the units of highest regression weight over the outcomes. Then the masks that together save most on
    these sequences.

    Args:
        histories: outcomes of the same masks per training sequence, including the full model's.
        budgets: numbers of units.
        units: number of units.
        metric: name of the quality in the outcomes.
        tolerance: tolerance of the criterion.
    """
    space, memory = Space.of(units), Memory()
    for outcomes in histories:
        archive = Archive(space, metric, tolerance)
        archive.add(outcomes)
        memory.learn(archive)
    masks = {one.allocation for outcomes in histories for one in outcomes} | set(memory.suggest(space, len(budgets)))
    if memory.usefulness:
        masks |= {Hints(influence=memory.usefulness).keep(space, budget) for budget in budgets}
    return sorted(masks, key=_rank)


def _rank(mask: Allocation) -> tuple[int, Allocation]:
    return len(mask), mask


def code_book(quality_NM: NDArray[np.float64], cost_M: NDArray[np.float64], *, size: int, price: float) -> list[int]:
    """Greedy cover: columns of the masks with the highest total value when each sequence uses its best one.

    Args:
        quality_NM: quality per sequence and mask.
        cost_M: cost of the masks, as fractions of the full model's.
        size: maximum number of masks.
        price: cost of the full model, in units of quality.

    Returns:
        Columns in the order of selection; fewer than `size` if no further mask adds value.
    """
    worth_NM = quality_NM - price * cost_M
    chosen = [int(worth_NM.sum(0).argmax())]
    while len(chosen) < size:
        had_N = worth_NM[:, chosen].max(1)
        gain_M = np.maximum(worth_NM - had_N[:, None], 0).sum(0)
        if not gain_M.max() > 0:
            break
        chosen.append(int(gain_M.argmax()))
    return chosen
