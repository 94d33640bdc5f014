"""Everything that was evaluated for one sequence, and what it proves."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from oracle.errors import InputError
from oracle.metrics.criterion import least_quality
from oracle.search.space import Space
from oracle.types import Allocation, Outcome

__all__ = ["COST_SLACK", "Archive", "free_count"]

COST_SLACK = 1e-9
"""Costs that differ by less are equal: they are sums of floats."""


class Archive:
    """The outcomes of one sequence; the order in which they came makes no difference.

    Args:
        space: what the search may allocate.
        metric: name of the quality that the criterion compares.
        tolerance: by how much an allocation may fall short of the full model's quality.

    Raises:
        InputError: if the tolerance is negative or no number.
    """

    def __init__(self, space: Space, metric: str, tolerance: float = 0.0) -> None:
        if not tolerance >= 0:
            raise InputError(f"the tolerance must be 0 or more, not {tolerance}: the full model itself has to qualify")
        self.space = space
        self.metric = metric
        self.tolerance = tolerance
        self._outcomes: dict[Allocation, Outcome] = {}
        self._tested: Counter[int] = Counter()
        self._exhausted: set[int] = set()
        self._upper: Outcome | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Takes outcomes in, in any order; one of an allocation that is known already is ignored."""
        new = {outcome.allocation: outcome for outcome in outcomes if outcome.allocation not in self._outcomes}
        known = self.full is not None
        self._outcomes |= new
        self._tested.update(count for allocation in new if (count := self.free_count(allocation)) is not None)
        if self.full is not None:
            # The full model's outcome decides about all that came before it.
            arrived = new.values() if known else self._outcomes.values()
            qualified = [outcome for outcome in arrived if self.qualifies(outcome)]
            self._upper = min([*qualified, *([self._upper] if self._upper else [])], key=self._rank, default=None)

    def exhaust(self, count: int) -> None:
        """Notes that every mask of exactly so many free units has been tested, and that those which qualify were added.

        Raises:
            InputError: if there are not so many free units.
        """
        if not 0 <= count <= len(self.space.free):
            raise InputError(f"0 to {len(self.space.free)} free units can be exhausted, not {count}")
        self._exhausted.add(count)

    def exhaust_below(self, units: int) -> None:
        """Notes the same of every count at which masks run fewer units than this, the fixed ones included."""
        for count in range(units - len(self.space.fixed)):
            self.exhaust(count)

    def __contains__(self, allocation: object) -> bool:
        return allocation in self._outcomes

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def outcomes(self) -> Mapping[Allocation, Outcome]:
        """What was evaluated, read-only."""
        return MappingProxyType(self._outcomes)

    @property
    def full(self) -> Outcome | None:
        """The full model's outcome, once it is known."""
        return self._outcomes.get(self.space.full)

    @property
    def threshold(self) -> float | None:
        """The quality that the criterion requires: the full model's less the tolerance; None before that is known."""
        return None if self.full is None else self.quality(self.full) - self.tolerance

    @property
    def least(self) -> float | None:
        """The least quality that qualifies; None before the full model's is known."""
        return None if self.full is None else least_quality(self.quality(self.full), self.tolerance)

    def quality(self, outcome: Outcome) -> float:
        """The outcome's quality; minus infinity if it was dropped, since then it cannot reach the threshold."""
        return -math.inf if outcome.dropped else outcome.quality[self.metric]

    def qualifies(self, outcome: Outcome) -> bool:
        """Whether the outcome meets the criterion; none does before the full model's quality is known."""
        least = self.least
        return least is not None and self.quality(outcome) >= least

    @property
    def upper(self) -> Outcome | None:
        """The cheapest outcome that qualifies; of equal ones that of the highest quality, then the first in order."""
        return self._upper

    def free_count(self, allocation: Allocation) -> int | None:
        """How many free units a skip mask of the space runs; None for anything else."""
        return free_count(self.space, allocation)

    def exhausted(self, count: int) -> bool:
        """Whether every mask of exactly so many free units has been tested."""
        return count in self._exhausted or self._tested[count] >= math.comb(len(self.space.free), count)

    def settled(self, allocation: Allocation) -> bool:
        """Whether evaluating the allocation can tell nothing new: it is here, or a mask of an exhausted count."""
        count = self.free_count(allocation)
        return allocation in self._outcomes or (count is not None and self.exhausted(count))

    @property
    def exhausted_below(self) -> int:
        """The least number of units of which not every mask has been tested; one more than there are if all were."""
        counts = range(len(self.space.free) + 1)
        return len(self.space.fixed) + next((k for k in counts if not self.exhausted(k)), len(counts))

    @property
    def lower(self) -> float:
        """A proven lower bound of the cost of any skip mask that qualifies.

        A mask that is not tested has at least k free units, k being the least count that is not exhausted; so it costs
        at least the fixed units and the k cheapest free ones. A tested mask that qualifies costs at least what `upper`
        does. With uneven costs the bound is just as true but weaker, since the k cheapest units seldom go together.
        Layer paths are outside the claim.
        """
        least = self.space.cost(self.space.mask(frozenset()))
        if self.full is None:
            return least
        cheapest = sorted(self.space.costs[unit] for unit in self.space.free)
        open_counts = (k for k in range(len(cheapest) + 1) if not self.exhausted(k))
        untested = least + sum(cheapest[: next(open_counts, len(cheapest))])
        return min(untested, self.space.cost(self._upper.allocation)) if self._upper else untested

    @property
    def certified(self) -> bool:
        """Whether `upper` is proven to be the cheapest skip mask that qualifies."""
        return self._upper is not None and self.lower >= self.space.cost(self._upper.allocation) - COST_SLACK

    def frontier(self) -> list[Outcome]:
        """The best known outcome at each cost, as long as it beats all the cheaper ones: rising in cost and quality."""
        best: list[Outcome] = []
        for outcome in sorted((o for o in self._outcomes.values() if not o.dropped), key=self._rank):
            if not best or self.quality(outcome) > self.quality(best[-1]):
                best.append(outcome)
        return best

    def _rank(self, outcome: Outcome) -> tuple[float, float, Allocation]:
        return self.space.cost(outcome.allocation), -self.quality(outcome), outcome.allocation


def free_count(space: Space, allocation: Allocation) -> int | None:
    """How many free units a skip mask runs; None for a layer path, and where a fixed unit is missing."""
    units = set(allocation)
    mask = space.fixed <= units <= set(space.full) and list(allocation) == sorted(units)
    return len(allocation) - len(space.fixed) if mask else None
