"""Candidate masks for all sequences, and a small code book of them."""

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from oracle.allocations import unified
from oracle.search import Hints, Memory, Space
from oracle.search.archive import Archive
from oracle.types import Allocation, Outcome

__all__ = ["candidate_masks", "code_book"]


def candidate_masks(
    histories: Seq[Seq[Outcome]],
    influence: Seq[float],
    budgets: Seq[int],
    *,
    metric: str,
    tolerance: float,
) -> list[Allocation]:
    """Masks suggested by the outcomes of some sequences, by rising cost.

    Per budget: unified skipping, the units of highest block influence, and the units of highest regression weight over
    the outcomes. Then the masks that together save most on these sequences, the empty mask and the full model.

    Args:
        histories: outcomes of the search per sequence, including the full model's.
        influence: block influence per unit.
        budgets: numbers of units.
        metric: name of the quality in the outcomes.
        tolerance: tolerance of the criterion.
    """
    space, memory = Space.of(len(influence)), Memory()
    for outcomes in histories:
        archive = Archive(space, metric, tolerance)
        archive.add(outcomes)
        memory.learn(archive)
    masks = {(), space.full, *memory.suggest(space, len(budgets))}
    for budget in budgets:
        masks.add(unified(space.units, budget))
        for worth in (tuple(influence), memory.usefulness):
            if worth:
                masks.add(Hints(influence=worth).keep(space, budget))
    return sorted(masks, key=lambda mask: (len(mask), mask))


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
