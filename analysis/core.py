"""One capacity of the multiple-choice knapsack, exactly, for costs of any kind.

The linear relaxation prices cost in quality. At that price every sequence has a best item, and each other one loses
something; what a whole assignment loses is at most the gap between the relaxation's bound and the best assignment
known. So the sequences are let go one after the other, the one whose second best loses least first. Of the partial
assignments only those are kept that lose less than the gap and that no other one beats in cost and quality. Each is a
whole assignment too, for the sequences not let go yet stay as they are: the best of them narrows the gap, until the
next sequence would lose more than is left of it. After Pisinger 1995, A minimal algorithm for the multiple-choice
knapsack problem (European Journal of Operational Research 83).

Shapes: N sequences, K columns of items, S partial assignments.
"""

from dataclasses import dataclass

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.items import Items
from analysis.knapsack import bought, envelope

__all__ = ["Closed", "best_within", "cheapest_with"]

STATES = 20_000
"""Partial assignments kept at a time; of more those that lose most are given up, and a gap stays open."""

EFFORT = 2_000_000
"""Partial assignments looked at in all, about a second; then the search ends, and a gap stays open."""

ROUNDING = 1e-12
"""A gap below this is closed."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """An assignment.

    Attributes:
        choice: columns of the items, shape (N,).
        gap: how much better the best one may be, in terms of what was optimised; 0 if this is it.
    """

    choice: IntArray
    gap: float


def best_within(items: Items, cost: float) -> Closed:
    """Most total quality within a total cost; of equally good ones the cheapest. The gap is one of total quality.

    Args:
        items: what there is to choose from.
        cost: the total cost, at least that of the cheapest items.
    """
    hull = envelope(items)
    spent_S = hull.base_cost.sum() + np.cumsum(hull.cost)
    segments = int(np.searchsorted(spent_S, cost, side="right"))
    choice_N = bought(hull, segments)
    if segments == len(spent_S):
        return Closed(choice=choice_N, gap=0.0)
    # In fractions of the full model, so that rounding errors are those of numbers around 1.
    weight_NK, limit = items.cost_NK / items.full_cost, cost / items.full_cost
    return _Search(weight_NK, items.quality_NK, choice_N, hull.slope[segments] * items.full_cost, limit).run()


def cheapest_with(items: Items, quality: float) -> Closed:
    """Least total cost that has a total quality; of equally cheap ones the best. The gap is one of total cost.

    Args:
        items: what there is to choose from.
        quality: the total quality, at most that of the best items.
    """
    hull = envelope(items)
    gained_S = np.cumsum(np.append(hull.base_quality.sum(), hull.gain))
    # Rounding may leave the very last sum a hair under the best there is.
    segments = min(int(np.searchsorted(gained_S, quality)), len(hull.gain))
    choice_N = bought(hull, segments)
    if segments == 0:
        return Closed(choice=choice_N, gap=0.0)
    # The same problem seen from the other side: most cost saved within a loss of quality.
    saved_NK = np.where(items.quality_NK > -np.inf, -items.cost_NK / items.full_cost, -np.inf)
    price = 1 / (hull.slope[segments - 1] * items.full_cost)
    closed = _Search(-items.quality_NK, saved_NK, choice_N, price, -quality).run()
    return Closed(choice=closed.choice, gap=closed.gap * items.full_cost)


class _Search:
    """Most total value within a total weight, as differences to an assignment that keeps within.

    Args:
        weight_NK: of each item.
        value_NK: of each item; -inf where there is none.
        choice_N: the assignment, of the best items at the price.
        slope: the price of weight in value.
        limit: of the total weight.
    """

    def __init__(
        self, weight_NK: FloatArray, value_NK: FloatArray, choice_N: IntArray, slope: float, limit: float
    ) -> None:
        chosen = np.arange(len(choice_N)), choice_N
        self._first_N, self._slope = choice_N, slope
        self._room = max(0.0, limit - float(weight_NK[chosen].sum()))
        self._weight_NK = weight_NK - weight_NK[chosen][:, None]
        self._value_NK = value_NK - value_NK[chosen][:, None]
        self._loss_NK = np.maximum(slope * self._weight_NK - self._value_NK, 0.0)
        self._loss_NK[chosen] = np.inf
        self._weight_S, self._value_S = np.zeros(1), np.zeros(1)
        self._picks: list[tuple[int, IntArray, IntArray]] = []
        self._best, self._best_N = (0.0, 0.0), choice_N
        self._given_up, self._effort = np.inf, 0

    @property
    def _margin(self) -> float:
        """What a whole assignment that beats the best one known may lose at most."""
        return self._slope * self._room - self._best[0]

    def run(self) -> Closed:
        """The best assignment."""
        least_N = self._loss_NK.min(axis=1)
        for n in least_N.argsort(kind="stable").tolist():
            others = np.flatnonzero(self._loss_NK[n] < self._margin)
            if self._margin <= ROUNDING or not len(others):
                break
            if self._effort > EFFORT:
                # Whatever lets go one of the remaining sequences loses as much.
                self._given_up = min(self._given_up, float(least_N[n]))
                break
            self._let_go(n, np.append(self._first_N[n], others))
            self._note_best()
            self._thin_out()
        return Closed(choice=self._best_N, gap=max(0.0, self._margin - self._given_up))

    def _let_go(self, n: int, columns: IntArray) -> None:
        """Every partial assignment with each of these items of a sequence."""
        parent_S = np.repeat(np.arange(len(self._weight_S)), len(columns))
        column_S = np.tile(columns, len(self._weight_S))
        self._weight_S = self._weight_S[parent_S] + self._weight_NK[n, column_S]
        self._value_S = self._value_S[parent_S] + self._value_NK[n, column_S]
        self._picks.append((n, parent_S, column_S))
        self._effort += len(parent_S)

    def _note_best(self) -> None:
        """Of the assignments within the limit that of most value; of equal ones, but for rounding, the lightest."""
        within = np.flatnonzero(self._weight_S <= self._room)
        if not len(within):
            return
        most = self._value_S[within].max()
        equal = within[self._value_S[within] > most - ROUNDING]
        state = equal[self._weight_S[equal].argmin()]
        value, weight = self._best
        if most > value + ROUNDING or (most > value - ROUNDING and self._weight_S[state] < weight):
            self._best, self._best_N = (max(value, float(most)), float(self._weight_S[state])), self._first_N.copy()
            for n, parent_S, column_S in reversed(self._picks):
                self._best_N[n], state = column_S[state], parent_S[state]

    def _thin_out(self) -> None:
        """Keeps what no other matches in both and what may still lead to something better."""
        order = np.lexsort((-self._value_S, self._weight_S))
        value = self._value_S[order]
        kept = order[np.append(True, value[1:] > np.maximum.accumulate(value)[:-1])]
        loss = self._slope * self._weight_S[kept] - self._value_S[kept]
        kept, loss = kept[loss < self._margin], loss[loss < self._margin]
        if len(kept) > STATES:
            least = np.argsort(loss, kind="stable")
            self._given_up = min(self._given_up, float(loss[least[STATES]]))
            kept = kept[least[:STATES]]
        n, parent_S, column_S = self._picks[-1]
        self._picks[-1] = (n, parent_S[kept], column_S[kept])
        self._weight_S, self._value_S = self._weight_S[kept], self._value_S[kept]
