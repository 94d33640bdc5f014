"""One capacity of the multiple-choice knapsack, solved exactly for arbitrary costs.

The linear relaxation prices cost in quality. At that price every sequence has a best item, and each other item loses
something; a whole assignment can lose at most the gap between the relaxation's bound and the best known assignment. So
sequences are branched on one after the other, in rising order of the loss of their second-best item. Only partial
assignments are kept that lose less than the gap and that no other one beats in cost and quality. Each is also a whole
assignment, because sequences not yet branched on keep their best item: the best of them narrows the gap, until the next
sequence would lose more than the remaining gap. After Pisinger 1995, A minimal algorithm for the multiple-choice
knapsack problem (European Journal of Operational Research 83). In shapes, X is the partial assignments.
"""

from dataclasses import dataclass

import numpy as np

from analysis.grouping import FloatArray, IntArray
from analysis.knapsack.items import Items, pieces, undominated
from analysis.knapsack.relaxation import Envelope, bought

__all__ = ["Closed", "best_within", "cheapest_with"]

STATES = 20_000
"""Maximum number of partial assignments; beyond it those that lose most are discarded, and a gap may remain."""

EFFORT = 2_000_000
"""Maximum number of partial assignments examined in all, about a second; then the search ends, and a gap remains."""

ROUNDING = 1e-12
"""A gap below this counts as closed."""

NEARLY = 1e-6
"""Rounding tolerance of totals in steps."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """An assignment.

    Attributes:
        choice: columns of the items, shape (N,).
        gap: upper bound of the distance to the optimum, in terms of the optimised quantity; 0 if optimal.
    """

    choice: IntArray
    gap: float


def best_within(items: Items, cost: float, hull: Envelope) -> Closed:
    """Maximal total quality within a total cost, the cheapest among equals. The gap is in total quality.

    The cost must be at least that of the cheapest items; `hull` is the items' envelope.
    """
    spent_J = hull.base_cost.sum() + np.cumsum(hull.cost)
    segments = int(np.searchsorted(spent_J, cost, side="right"))
    choice_N = bought(hull, segments)
    if segments == len(spent_J):
        return Closed(choice=choice_N, gap=0.0)
    unit = items.step or items.full_cost
    room = (cost - items.costs(choice_N).sum()) / unit
    if items.step is not None:
        room = np.floor(room + NEARLY)
    return _Search(_Weighed(items=items, choice_N=choice_N), choice_N, hull.slope[segments] * unit, room).run()


def cheapest_with(items: Items, quality: float, hull: Envelope) -> Closed:
    """Least total cost with a total quality, at most that of the best items. The gap is in total cost."""
    gained_J = np.cumsum(np.append(hull.base_quality.sum(), hull.gain))
    # Rounding may leave the last sum just below the best total.
    segments = min(int(np.searchsorted(gained_J, quality)), len(hull.gain))
    choice_N = bought(hull, segments)
    if segments == 0:
        return Closed(choice=choice_N, gap=0.0)
    # The mirrored problem: maximal cost saved within a loss of quality. Costs in steps differ by at least one.
    unit = items.step or items.full_cost
    price, room = 1 / (hull.slope[segments - 1] * unit), items.qualities(choice_N).sum() - quality
    least = 0.0 if items.step is None else 1.0
    closed = _Search(_Weighed(items=items, choice_N=choice_N, saving=True), choice_N, price, room, least).run()
    return Closed(choice=closed.choice, gap=closed.gap * unit)


@dataclass(frozen=True, kw_only=True)
class _Weighed:
    """Weights and values of items relative to the chosen ones.

    Weight is cost, in steps or else in fractions of the full model, so that rounding errors are those of numbers around
    1; value is quality. With `saving`, weight is quality lost and value is cost saved.
    """

    items: Items
    choice_N: IntArray
    saving: bool = False

    def __call__(self, rows: slice | IntArray) -> tuple[FloatArray, FloatArray]:
        items, choice_R = self.items, self.choice_N[rows]
        cost_RC, quality_RC = items.cost_NC[rows], items.quality_NC[rows]
        row_R = np.arange(len(choice_R))
        dearer_RC = (cost_RC - cost_RC[row_R, choice_R][:, None]) / (items.step or items.full_cost)
        better_RC = quality_RC - quality_RC[row_R, choice_R][:, None]
        if items.step is not None:
            np.rint(dearer_RC, out=dearer_RC)
        return (-better_RC, -dearer_RC) if self.saving else (dearer_RC, better_RC)


class _Search:
    """Maximal total value within a total weight, relative to a feasible assignment.

    Args:
        weighed: weights and values of the items of some sequences; value -inf or weight inf where there is no item.
        choice_N: the assignment, of the best items at the price.
        slope: the price of weight in value.
        room: unused weight of the assignment.
        least: least difference of two different values; 0 if unknown.
    """

    def __init__(self, weighed: _Weighed, choice_N: IntArray, slope: float, room: float, least: float = 0.0) -> None:
        self._weighed, self._first_N, self._slope = weighed, choice_N, slope
        self._room, self._closed = max(0.0, room), max(ROUNDING, least - NEARLY)
        self._weight_X, self._value_X = np.zeros(1), np.zeros(1)
        self._picks: list[tuple[int, IntArray, IntArray]] = []
        self._best, self._best_N = (0.0, 0.0), choice_N
        self._given_up, self._effort = np.inf, 0

    @property
    def _margin(self) -> float:
        """Maximum loss of a whole assignment that beats the best known one."""
        return self._slope * self._room - self._best[0]

    def run(self) -> Closed:
        """The best assignment."""
        for n, least in zip(*self._open(), strict=True):
            if self._margin < self._closed or least >= self._margin:
                break
            if self._effort > EFFORT:
                # Branching on any of the remaining sequences loses at least this much.
                self._given_up = min(self._given_up, least)
                break
            self._branch(n)
            self._note_best()
            self._thin_out()
        gap = max(0.0, self._margin - self._given_up)
        return Closed(choice=self._best_N, gap=gap if gap >= self._closed else 0.0)

    def _open(self) -> tuple[list[int], list[float]]:
        """Sequences whose second-best item may occur in a better assignment, and its loss, rising."""
        least_N = np.concatenate([self._loss(rows)[2].min(axis=1) for rows in pieces(self._weighed.items)])
        open_N = np.flatnonzero(least_N < self._margin)
        open_N = open_N[least_N[open_N].argsort(kind="stable")]
        return open_N.tolist(), least_N[open_N].tolist()

    def _loss(self, rows: slice | IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weight, value and loss of items; the chosen items have infinite loss."""
        weight_RC, value_RC = self._weighed(rows)
        loss_RC = np.maximum(self._slope * weight_RC - value_RC, 0.0)
        loss_RC[np.arange(len(loss_RC)), self._first_N[rows]] = np.inf
        return weight_RC, value_RC, loss_RC

    def _branch(self, n: int) -> None:
        """Extends every partial assignment by each item of a sequence that loses less than the margin."""
        [weight_C], [value_C], [loss_C] = self._loss(np.array([n]))
        columns = np.append(self._first_N[n], np.flatnonzero(loss_C < self._margin))
        parent_X = np.repeat(np.arange(len(self._weight_X)), len(columns))
        column_X = np.tile(columns, len(self._weight_X))
        self._weight_X = self._weight_X[parent_X] + weight_C[column_X]
        self._value_X = self._value_X[parent_X] + value_C[column_X]
        self._picks.append((n, parent_X, column_X))
        self._effort += len(parent_X)

    def _note_best(self) -> None:
        """Records the assignment of highest value within the limit; the lightest among equals, up to rounding."""
        within = np.flatnonzero(self._weight_X <= self._room)
        if not len(within):
            return
        most = self._value_X[within].max()
        equal = within[self._value_X[within] > most - ROUNDING]
        state = equal[self._weight_X[equal].argmin()]
        value, weight = self._best
        if most > value + ROUNDING or (most > value - ROUNDING and self._weight_X[state] < weight):
            self._best, self._best_N = (max(value, float(most)), float(self._weight_X[state])), self._first_N.copy()
            for n, parent_X, column_X in reversed(self._picks):
                self._best_N[n], state = column_X[state], parent_X[state]

    def _thin_out(self) -> None:
        """Keeps partial assignments that no other one matches in both, and that may still lead to a better one."""
        kept = undominated(self._weight_X, self._value_X)
        loss = self._slope * self._weight_X[kept] - self._value_X[kept]
        kept, loss = kept[loss < self._margin], loss[loss < self._margin]
        if len(kept) > STATES:
            least = np.argsort(loss, kind="stable")
            self._given_up = min(self._given_up, float(loss[least[STATES]]))
            kept = kept[least[:STATES]]
        n, parent_X, column_X = self._picks[-1]
        self._picks[-1] = (n, parent_X[kept], column_X[kept])
        self._weight_X, self._value_X = self._weight_X[kept], self._value_X[kept]
