"""All outcomes of one sequence, and the bounds they prove."""

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
    """The outcomes of one sequence, independent of the order in which they were added.

    Args:
        space: the search space.
        metric: the criterion's metric.
        tolerance: allowed loss against the full model's quality.

    Raises:
        InputError: if the tolerance is negative or not a number.
    """

    def __init__(self, space: Space, metric: str, tolerance: float = 0.0) -> None:
        if not tolerance >= 0:
            raise InputError(f"the tolerance must be 0 or more, not {tolerance}: the full model itself must qualify")
        self.space = space
        self.metric = metric
        self.tolerance = tolerance
        self._outcomes: dict[Allocation, Outcome] = {}
        self._tested: Counter[int] = Counter()
        self._exhausted: set[int] = set()
        self._upper: Outcome | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Adds outcomes in any order; one of a known allocation is ignored."""
        new = {outcome.allocation: outcome for outcome in outcomes if outcome.allocation not in self._outcomes}
        known = self.full is not None
        self._outcomes |= new
        self._tested.update(count for allocation in new if (count := self.free_count(allocation)) is not None)
        if self.full is not None:
            # With the full model's outcome, all earlier outcomes can be judged.
            arrived = new.values() if known else self._outcomes.values()
            qualified = [outcome for outcome in arrived if self.qualifies(outcome)]
            self._upper = min([*qualified, *([self._upper] if self._upper else [])], key=self._rank, default=None)

    def exhaust(self, count: int) -> None:
        """Records that every mask of exactly `count` free units was tested, and that the qualifying ones were added.

        Raises:
            InputError: if there are fewer free units.
        """
        if not 0 <= count <= len(self.space.free):
            raise InputError(f"0 to {len(self.space.free)} free units can be exhausted, not {count}")
        self._exhausted.add(count)

    def exhaust_below(self, units: int) -> None:
        """Records the same for every count whose masks run fewer units than this, the fixed ones included."""
        for count in range(units - len(self.space.fixed)):
            self.exhaust(count)

    def __contains__(self, allocation: object) -> bool:
        return allocation in self._outcomes

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def outcomes(self) -> Mapping[Allocation, Outcome]:
        """The outcomes by allocation, read-only."""
        return MappingProxyType(self._outcomes)

    @property
    def full(self) -> Outcome | None:
        """The full model's outcome, once known."""
        return self._outcomes.get(self.space.full)

    @property
    def threshold(self) -> float | None:
        """Quality required by the criterion: the full model's less the tolerance; None before that is known."""
        return None if self.full is None else self.quality(self.full) - self.tolerance

    @property
    def least(self) -> float | None:
        """The least quality that qualifies; None before the full model's is known."""
        return None if self.full is None else least_quality(self.quality(self.full), self.tolerance)

    def quality(self, outcome: Outcome) -> float:
        """The outcome's quality; minus infinity if it was dropped, as it cannot reach the threshold."""
        return -math.inf if outcome.dropped else outcome.quality[self.metric]

    def qualifies(self, outcome: Outcome) -> bool:
        """Whether the outcome meets the criterion; false before the full model's quality is known."""
        least = self.least
        return least is not None and self.quality(outcome) >= least

    @property
    def upper(self) -> Outcome | None:
        """The cheapest outcome that qualifies; among equals that of the highest quality, then the first in order."""
        return self._upper

    def free_count(self, allocation: Allocation) -> int | None:
        """Number of free units that a skip mask of the space runs; None for anything else."""
        return free_count(self.space, allocation)

    def exhausted(self, count: int) -> bool:
        """Whether every mask of exactly `count` free units has been tested."""
        return count in self._exhausted or self._tested[count] >= math.comb(len(self.space.free), count)

    def settled(self, allocation: Allocation) -> bool:
        """Whether evaluating the allocation would add nothing: it is known, or a mask of an exhausted count."""
        count = self.free_count(allocation)
        return allocation in self._outcomes or (count is not None and self.exhausted(count))

    @property
    def exhausted_below(self) -> int:
        """The least number of units of which not every mask has been tested; one above the maximum if all were."""
        counts = range(len(self.space.free) + 1)
        return len(self.space.fixed) + next((k for k in counts if not self.exhausted(k)), len(counts))

    @property
    def lower(self) -> float:
        """A proven lower bound of the cost of any qualifying skip mask.

        An untested mask has at least k free units, the least count that is not exhausted; so it costs at least the
        fixed units and the k cheapest free ones. A tested mask that qualifies costs at least as much as `upper`. With
        unequal costs the bound is valid but weaker, since the k cheapest units seldom go together. It excludes layer
        paths.
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
        """Whether `upper` is proven to be the cheapest qualifying skip mask."""
        return self._upper is not None and self.lower >= self.space.cost(self._upper.allocation) - COST_SLACK

    def frontier(self) -> list[Outcome]:
        """Outcomes that are better than all cheaper ones, rising in cost and quality."""
        best: list[Outcome] = []
        for outcome in sorted((o for o in self._outcomes.values() if not o.dropped), key=self._rank):
            if not best or self.quality(outcome) > self.quality(best[-1]):
                best.append(outcome)
        return best

    def _rank(self, outcome: Outcome) -> tuple[float, float, Allocation]:
        return self.space.cost(outcome.allocation), -self.quality(outcome), outcome.allocation


def free_count(space: Space, allocation: Allocation) -> int | None:
    """Number of free units that a skip mask runs; None for a layer path, or if a fixed unit is missing."""
    units = set(allocation)
    mask = space.fixed <= units <= set(space.full) and list(allocation) == sorted(units)
    return len(allocation) - len(space.fixed) if mask else None
