"""The linear relaxation of the knapsack: upper concave envelopes, whose segments are bought by falling efficiency.

Its breakpoints are optimal at their own total cost, and between them the optimum is less than one segment higher (Sinha
and Zoltners 1979). `analysis.knapsack.exact` closes that gap at a single capacity.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.grouping import CostArray, FloatArray, IntArray
from analysis.knapsack.items import Items, Solution, pieces

__all__ = ["Envelope", "bought", "envelope", "solve_relaxed"]


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Upper concave envelopes cut into segments, the most efficient first.

    Attributes:
        base: column of each sequence's cheapest item.
        base_cost: its cost.
        base_quality: its quality.
        sequence: sequence of each segment.
        end: column of the item at its end.
        cost: its cost, positive.
        gain: its gain of quality, positive.
        slope: gain over cost, never rising.
    """

    base: IntArray
    base_cost: CostArray
    base_quality: FloatArray
    sequence: IntArray
    end: IntArray
    cost: CostArray
    gain: FloatArray
    slope: FloatArray


def envelope(items: Items) -> Envelope:
    """Upper concave envelope of each sequence's items, by gift wrapping over many sequences at once."""
    parts = [part for rows in pieces(items) for part in _wrap(items, rows)]
    sequence_J, end_J, cost_J, gain_J, slope_J = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Both sorts are stable: of equally efficient segments, the first sequence's nearest one comes first.
    order = np.argsort(sequence_J, kind="stable")
    order = order[np.argsort(-slope_J[order], kind="stable")]
    base_N = (items.quality_NC > -np.inf).argmax(axis=1)
    return Envelope(
        base=base_N,
        base_cost=items.costs(base_N),
        base_quality=items.qualities(base_N),
        sequence=sequence_J[order],
        end=end_J[order],
        cost=cost_J[order],
        gain=gain_J[order],
        slope=slope_J[order],
    )


def _wrap(items: Items, rows: slice) -> Iterator[tuple[IntArray, IntArray, CostArray, FloatArray, FloatArray]]:
    """Sequence, end, cost, gain and slope of the first segments of some sequences, of their second ones, and so on."""
    cost_RC, quality_RC = items.cost_NC[rows], items.quality_NC[rows]
    at_R = (quality_RC > -np.inf).argmax(axis=1)
    sequence_R, limit_R = rows.start + np.arange(len(at_R)), np.full(len(at_R), np.inf)
    while True:
        row_R, last_column = np.arange(len(at_R)), cost_RC.shape[1] - 1
        distance_RC = cost_RC - cost_RC[row_R, at_R][:, None]
        rise_RC = quality_RC - quality_RC[row_R, at_R][:, None]
        slope_RC = np.full(rise_RC.shape, -np.inf)
        np.divide(rise_RC, distance_RC, out=slope_RC, where=distance_RC > 0)
        to_R = last_column - slope_RC[:, ::-1].argmax(axis=1)  # the farthest of equally steep ones
        # Rounding may make a collinear segment look steeper than the one before it.
        limit_R = np.minimum(limit_R, slope_RC[row_R, to_R])
        moves = np.flatnonzero(limit_R > 0)
        to_R = to_R[moves]
        yield sequence_R[moves], to_R, distance_RC[moves, to_R], rise_RC[moves, to_R], limit_R[moves]
        if not len(moves):
            return
        at_R, sequence_R, limit_R = to_R, sequence_R[moves], limit_R[moves]
        cost_RC, quality_RC = cost_RC[moves], quality_RC[moves]


def solve_relaxed(hull: Envelope) -> Solution:
    """Breakpoints of the linear relaxation, each of them integral; `shift` is the largest segment's cost."""
    return Solution(
        cost=np.cumsum(np.append(hull.base_cost.sum(), hull.cost)),
        quality=np.cumsum(np.append(hull.base_quality.sum(), hull.gain)),
        choose=partial(bought, hull),
        shift=float(hull.cost.max(initial=0)),
    )


def bought(hull: Envelope, segments: int) -> IntArray:
    """Columns of the items after the first segments are bought."""
    choice_N = hull.base.copy()
    np.maximum.at(choice_N, hull.sequence[:segments], hull.end[:segments])
    return choice_N
