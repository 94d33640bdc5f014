"""Number of distinct allocations that serve most sequences: if it is small, a controller has little to choose from."""

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack

from analysis.experiment import Experiment, InputError, as_experiment
from analysis.grouping import BoolArray, IntArray, allocation_keys, group
from analysis.per_sequence.savings import budgets
from oracle.metrics import qualifies
from oracle.types import RunPath
from oracle.utils.validation import check_list

__all__ = ["serving_allocations"]

COST_ROUNDING = 1e-12
"""Costs are sums of floats: within this they are equal."""

EXACT_SECONDS = 5.0
"""Time limit of the exact search for the fewest allocations, per share."""

EXACT_CELLS = 2_000_000
"""Maximum number of sequences times allocations for the exact search."""


def serving_allocations(
    experiment: RunPath, *, shares: tuple[float, ...] = (0.5, 0.9), slack: float = 0.0, exact: bool = True
) -> pd.DataFrame:
    """The fewest allocations that serve a share of the sequences.

    An allocation serves a sequence if it was tried there, meets the criterion, and costs no more than the minimal
    budget plus a slack. Allocations not tried on a sequence do not count, so the true number may be smaller; with a
    strategy that tries other masks on each sequence it usually is. Zero-quality sequences, served by all, are left out.

    The minimum is a partial set cover. The greedy choice, always the allocation that serves most of the remaining
    sequences, needs at most H(d) = 1 + 1/2 + ... + 1/d times the minimum, with d the smaller of the sequences to serve
    and the most that one allocation serves (Slavik 1997, Information Processing Letters 64); scipy's HiGHS proves the
    minimum if it can within `EXACT_SECONDS`.

    Args:
        experiment: the run.
        shares: of the sequences to be served, above 0 and at most 1.
        slack: cost above the minimal budget that still counts as serving, in the run's cost.
        exact: whether to search for the proven minimum.

    Returns:
        One row per share: `share`; `sequences`, their number, `of` the total; `allocations`, the fewest found; `lower`,
        the proven lower bound; `exact`, whether the two are equal; `chosen`, the allocations by falling service.

    Raises:
        InputError: if a share is not above 0 and at most 1.
    """
    check_list(shares, "shares")
    experiment = as_experiment(experiment)
    if not all(0 < share <= 1 for share in shares):
        raise InputError(f"shares above 0 and at most 1 are required, got {shares}")
    serves_AN, allocations = _serves(experiment, slack)
    rows = []
    for share in shares:
        wanted = int(np.ceil(share * serves_AN.shape[1] - 1e-9))
        chosen, lower = _greedy(serves_AN, wanted)
        if exact and lower < len(chosen) and serves_AN.size <= EXACT_CELLS:
            chosen, lower = _fewest(serves_AN, wanted, chosen, lower)
        order = sorted(chosen, key=lambda place: (-int(serves_AN[place].sum()), allocations[place]))
        rows.append(
            {
                "share": share,
                "sequences": wanted,
                "of": serves_AN.shape[1],
                "allocations": len(chosen),
                "lower": lower,
                "exact": lower == len(chosen),
                "chosen": [allocations[place] for place in order],
            }
        )
    return pd.DataFrame(rows)


def _serves(experiment: Experiment, slack: float) -> tuple[BoolArray, list[tuple[int, ...]]]:
    """Which allocation serves which sequence (A N), and the allocations; the first of those that serve the same."""
    minimal, evaluations = budgets(experiment), experiment.evaluations
    groups = group(evaluations, experiment.metric)
    meets = qualifies(groups.quality, groups.full[groups.code], experiment.tolerance)
    near = groups.cost <= (minimal["upper"].to_numpy() + slack + COST_ROUNDING)[groups.code]
    counted_N = minimal["informative"].to_numpy()
    rows = np.flatnonzero(meets & near & counted_N[groups.code])
    key_E, _ = allocation_keys(evaluations["allocation"].iloc[rows])
    serves_AN = np.zeros((key_E.max(initial=-1) + 1, len(counted_N)), dtype=bool)
    serves_AN[key_E, groups.code[rows]] = True
    serves_AN = serves_AN[:, counted_N]
    _, first = np.unique(serves_AN, axis=0, return_index=True)
    first = np.sort(first)
    _, row_of_key = np.unique(key_E, return_index=True)
    found = evaluations["allocation"].iloc[rows[row_of_key[first]]]
    return serves_AN[first], [tuple(int(layer) for layer in allocation) for allocation in found]


def _greedy(serves_AN: BoolArray, wanted: int) -> tuple[list[int], int]:
    """The greedy cover, and a lower bound: by its guarantee, and by the number of sequences each allocation serves."""
    if not wanted:
        return [], 0
    left_AN, chosen, served = serves_AN.copy(), [], 0
    while served < wanted:
        place = int(left_AN.sum(axis=1).argmax())
        served += int(left_AN[place].sum())
        chosen.append(place)
        left_AN[:, left_AN[place].copy()] = False
    sizes: IntArray = np.sort(serves_AN.sum(axis=1))[::-1]
    harmonic = (1 / np.arange(1, min(wanted, int(sizes.max(initial=1))) + 1)).sum()
    at_most = int(np.searchsorted(np.cumsum(sizes), wanted)) + 1
    return chosen, max(at_most, int(np.ceil(len(chosen) / harmonic - 1e-9)))


def _fewest(serves_AN: BoolArray, wanted: int, chosen: list[int], lower: int) -> tuple[list[int], int]:
    """Integer program: the fewest allocations such that enough sequences are served by a chosen one."""
    A, N = serves_AN.shape
    served = LinearConstraint(hstack([csr_array(serves_AN.T.astype(float)), -eye_array(N)]), lb=0.0)
    enough = LinearConstraint(np.append(np.zeros(A), np.ones(N))[None], lb=wanted)
    result = milp(
        np.append(np.ones(A), np.zeros(N)),
        integrality=np.append(np.ones(A), np.zeros(N)),
        bounds=Bounds(0, 1),
        constraints=[served, enough],
        options={"time_limit": EXACT_SECONDS},
    )
    if result.x is not None and (found := np.flatnonzero(result.x[:A] > 0.5).tolist()) and len(found) <= len(chosen):
        chosen = found
    bound = result.mip_dual_bound
    return chosen, max(lower, int(np.ceil(bound - 1e-6))) if bound is not None and np.isfinite(bound) else lower
