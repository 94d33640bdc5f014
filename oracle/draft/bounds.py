"""Proven bounds on what masks of whole layers get accepted, from whole budgets that are enumerated at every prefix.

The first draft token after a verified prefix starts from full-depth states, so that the same-output machinery decides
for every mask of a budget whether it is accepted. The few that are accepted are drafted further. In shapes, X is
prefixes.
"""

from itertools import combinations
from math import comb

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.draft.acceptance import Acceptance, Drafting
from oracle.draft.rounds import Times, fewest_rounds, least_ms
from oracle.engine.same_output import Verdict

__all__ = ["SCHEMA", "bounds_of", "enumerable"]

SCHEMA = pa.schema(
    [
        ("sequence", pa.string()),
        ("task", pa.string()),
        ("budget", pa.int32()),
        ("masks", pa.int64()),
        ("prefixes", pa.int32()),
        ("draft_ms", pa.float64()),
        ("first", pa.float64()),
        ("first_any", pa.float64()),
        ("rounds", pa.int32()),
        ("tokens", pa.int32()),
        ("ended", pa.bool_()),
        ("speedup", pa.float64()),
        ("speedup_beyond", pa.float64()),
        ("near", pa.int32()),
        ("best", pa.list_(pa.int16())),
    ]
)
"""One row per sequence and budget; all masks of at most `budget` whole layers, `masks` of them, were tested at each of
`prefixes` verified prefixes. Upper bounds: `first`, on the share of prefixes at which any one of these masks gets its
first draft token accepted, attained by `best`; `first_any`, the same if masks may differ by prefix; `speedup`, on the
expected speed-up of any one mask under the cost model, whatever decides how much each round drafts (attained by what
knows when to stop); `speedup_beyond`, on that of any mask of more layers: if all that it drafts were accepted, which is
proven but trivial. Near-ties, `near` of them among the first tokens, count as accepted. `rounds`: lower bound on the
rounds in which any one mask gives `tokens` tokens after the first; with `ended` the last of them may lack the token
that verification adds. `draft_ms`: of a draft token of `budget` layers, the cheapest ones."""


def enumerable(layers: int, most: int) -> int:
    """The largest budget whose masks, with those of all smaller ones, are at most `most`; -1 for none."""
    total, budget = 0, -1
    while budget < layers and (total := total + comb(layers, budget + 1)) <= most:
        budget += 1
    return budget


def bounds_of(acceptance: Acceptance, one: Drafting, times: Times, budget: int, most: int) -> list[dict[str, object]]:
    """Rows of `SCHEMA` of one sequence, for budgets 0 to `budget`."""
    output = acceptance.output(one.id)
    layers = acceptance.engine.model.layers
    layers_AL = _masks(layers, budget)
    verdict_AX = np.stack(
        [acceptance.engine.first_tokens(output, known, layers_AL) for known in output.prefixes], axis=1
    )
    accepts_AX = verdict_AX != Verdict.NO
    size_A = layers_AL.sum(1)
    costs_L = np.array(times.layers)
    draft_A = times.overhead + layers_AL @ costs_L
    # What is drafted further may round otherwise: the first token stays accepted.
    lengths_AX = np.zeros(accepts_AX.shape, dtype=np.int16)
    place_R, mask_R = np.nonzero(accepts_AX.T)
    masks_AU = np.repeat(layers_AL, 2, axis=1)
    lengths_AX[mask_R, place_R] = np.maximum(
        acceptance.engine.accepted_pairs(output, masks_AU, mask_R, place_R + 1, most), 1
    )
    rounds_A, ms_A = fewest_rounds(lengths_AX), least_ms(lengths_AX, draft_A, times)
    plain = one.length.tokens - 1
    rows: list[dict[str, object]] = []
    for least in range(budget + 1):
        some = np.flatnonzero(size_A <= least)
        share_A = accepts_AX[some].mean(1)
        best = some[int(share_A.argmax())]
        rows.append(
            {
                "sequence": one.id,
                "task": one.task,
                "budget": least,
                "masks": len(some),
                "prefixes": accepts_AX.shape[1],
                "draft_ms": times.overhead + float(np.sort(costs_L)[:least].sum()),
                "first": float(share_A.max()),
                "first_any": float(accepts_AX[some].any(0).mean()),
                "rounds": int(rounds_A[some].min()),
                "tokens": plain,
                "ended": one.length.ended,
                "speedup": plain * times.token / float(ms_A[some].min()),
                "speedup_beyond": _beyond(least, accepts_AX.shape[1], costs_L, times, most),
                "near": int((verdict_AX[some] == Verdict.TIE).sum()),
                "best": np.flatnonzero(layers_AL[best]).tolist(),
            }
        )
    return rows


def _beyond(budget: int, prefixes: int, costs_L: NDArray[np.float64], times: Times, most: int) -> float | None:
    """Bound on the speed-up of masks of more than `budget` layers; None if there are none."""
    if budget == len(costs_L):
        return None
    cheapest = times.overhead + np.sort(costs_L)[: budget + 1].sum()
    [ms] = least_ms(np.full((1, prefixes), most, dtype=np.int16), np.array([cheapest]), times)
    return prefixes * times.token / float(ms)


def _masks(layers: int, budget: int) -> NDArray[np.bool_]:
    """All masks of at most `budget` layers, in lexicographic order."""
    chosen = [mask for count in range(budget + 1) for mask in combinations(range(layers), count)]
    masks_AL = np.zeros((len(chosen), layers), dtype=np.bool_)
    for row, mask in enumerate(chosen):
        masks_AL[row, list(mask)] = True
    return masks_AL[np.lexsort(masks_AL.T[::-1])]
