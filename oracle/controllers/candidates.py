"""Masks worth evaluating on every sequence, and a small code book of them.

Shapes: N sequences, M masks.
"""

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
    """Masks that what is known of some sequences speaks for.

    At each budget unified skipping, the layers of highest block influence, and those that a regression over the
    outcomes finds most useful; then the masks that together save most on these sequences; nothing and everything.

    Args:
        histories: what a search found for each sequence, the full model among it.
        influence: block influence of each unit.
        budgets: numbers of units.
        metric: name of the quality in the outcomes.
        tolerance: of the criterion.
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
    """Greedy cover: the few masks that, each sequence taking its best one, are worth most together.

    Args:
        quality_NM: quality of every mask on every sequence.
        cost_M: of the masks, as fractions of the full model's.
        size: how many at most.
        price: what a whole full model is worth, in units of quality.

    Returns:
        Columns, in the order in which they were taken; fewer than `size` if no more of them helps.
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
