"""The first search: fixed families at every budget, then random masks spread over the budgets."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from itertools import zip_longest

import numpy as np

from oracle.families import early_exit, full, random_mask, unified
from oracle.search.base import Strategy
from oracle.types import Allocation, Outcome, Proposal

__all__ = ["Spread"]


class Spread(Strategy):
    """Full depth, unified skipping and early exit at every budget, then random masks, the same number a budget.

    Learns nothing from outcomes, so its results are an unbiased sample of what random search finds.

    Args:
        layers: L, depth of the model.
        evaluations: how many allocations to propose, if there are as many.
        seed: seeds the random masks.
    """

    def __init__(self, layers: int, evaluations: int, seed: int) -> None:
        self._proposals = list(_plan(layers, evaluations, seed))
        self._asked = 0

    def ask(self, count: int) -> list[Proposal]:
        """The next proposals of the plan."""
        batch = self._proposals[self._asked : self._asked + count]
        self._asked += len(batch)
        return batch

    def tell(self, outcomes: Seq[Outcome]) -> None:
        """Outcomes do not change the plan."""

    @property
    def done(self) -> bool:
        """Whether the whole plan has been asked."""
        return self._asked == len(self._proposals)


def _plan(layers: int, evaluations: int, seed: int) -> Iterator[Proposal]:
    seen: set[Allocation] = set()
    wanted = min(evaluations, 2**layers)
    for family, allocation in _families(layers):
        if len(seen) < wanted and allocation not in seen:
            seen.add(allocation)
            yield Proposal(allocation=allocation, family=family)
    rng = np.random.default_rng(seed)
    while len(seen) < wanted:
        # A round draws one mask a budget, in random order; budgets whose masks are used up repeat and are passed over.
        for budget in rng.permutation(np.arange(layers + 1)):
            allocation = random_mask(layers, int(budget), rng)
            if len(seen) < wanted and allocation not in seen:
                seen.add(allocation)
                yield Proposal(allocation=allocation, family="random")


def _families(layers: int) -> Iterator[tuple[str, Allocation]]:
    """Full depth first, then budgets in an order whose every beginning covers them evenly."""
    yield "full", full(layers)
    order = _evenly(layers + 1)
    pairs = zip_longest(
        (("unified", unified(layers, budget)) for budget in order),
        (("early-exit", early_exit(layers, budget)) for budget in order),
    )
    for pair in pairs:
        yield from pair


def _evenly(count: int) -> list[int]:
    """0..count-1 in bit-reversed order."""
    bits = max(1, (count - 1).bit_length())
    return [r for i in range(2**bits) if (r := int(f"{i:0{bits}b}"[::-1], 2)) < count]
