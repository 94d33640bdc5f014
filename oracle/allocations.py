"""Allocations by name (full depth, unified skipping, early exit, random masks), their costs, and as text."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from oracle.errors import InputError
from oracle.types import Allocation

__all__ = [
    "compact",
    "cost_of_each",
    "early_exit",
    "full",
    "parse",
    "published_unified",
    "random_mask",
    "skip_decode",
    "strip",
    "unified",
]

MOST = 10_000
"""Largest number of layers in one range of a written allocation."""


def full(layers: int) -> Allocation:
    """Every layer, in order."""
    return tuple(range(layers))


def early_exit(layers: int, budget: int) -> Allocation:
    """The first `budget` layers; all later ones are skipped."""
    _check(layers, budget)
    return tuple(range(budget))


def unified(layers: int, budget: int) -> Allocation:
    """Layers at equal intervals from the first, and the last (Liu et al. 2024, arXiv 2404.06954).

    For `layers` = L and `budget` = n the interval is int(L / (n - 1)); 0, L-1 and the rising multiples of the interval
    are kept until there are n. So they are spread evenly only where n - 1 divides L: beyond L/2 + 1 layers the interval
    is 1, and the first n - 1 layers are kept and the last. Where the published formula divides by zero: no layer
    (n = 0) or layer 0 (n = 1).
    """
    _check(layers, budget)
    if budget <= 1 or layers == 1:
        return tuple(range(budget))
    interval = layers // (budget - 1)
    kept = {0, layers - 1}
    for layer in range(interval, layers, interval):
        if len(kept) == budget:
            break
        kept.add(layer)
    return tuple(sorted(kept))


def published_unified(layers: int, speedup: float) -> Allocation:
    """The layers that unified skipping keeps at a target speed-up: `unified` at n = int(L / speedup).

    For n = 0 the released code keeps the first and the last layer, and so does this. For n = 1, where it divides by
    zero, this keeps layer 0. The published recipe fine-tunes the model with the mask; used as it is, the mask is
    zero-shot.

    Raises:
        InputError: if the speed-up is below 1 or not finite.
    """
    count = int(layers / _speedup(speedup))
    return unified(layers, count) if count else tuple(sorted({0, layers - 1}))


def skip_decode(layers: int, speedup: float, tokens: int) -> list[Allocation]:
    """SkipDecode's layers per generated token (Del Corro et al. 2023, arXiv 2307.02628).

    The budget falls linearly with the position, from 4/3 to 2/3 of its mean L / speedup, rounded (the two ends are
    ours). Layer 0 runs as the warm-up layer; of the others a token runs the uppermost, so that each token runs a subset
    of what the one before it ran, and no keys or values are missing. The published recipe trains the model for it.

    Args:
        layers: L.
        speedup: L over the mean budget, at least 1.
        tokens: number of tokens, at least 1.

    Raises:
        InputError: if the speed-up is below 1 or not finite.
    """
    mean = layers / _speedup(speedup)
    most = min(4 / 3 * mean, float(layers))
    least = 2 * mean - most
    budgets = [round(most + (least - most) * (place / max(1, tokens - 1))) for place in range(tokens)]
    return [(0, *range(layers - max(1, budget) + 1, layers)) for budget in budgets]


def _speedup(speedup: float) -> float:
    if not 1 <= speedup < float("inf"):
        raise InputError(f"a speed-up of at least 1 is required, but {speedup} was given")
    return speedup


def random_mask(layers: int, budget: int, rng: np.random.Generator) -> Allocation:
    """A uniform draw from all masks of `budget` layers."""
    _check(layers, budget)
    return tuple(sorted(int(layer) for layer in rng.choice(layers, size=budget, replace=False)))


def cost_of_each(allocations: Iterable[Iterable[int]], prices: Seq[float], overhead: float) -> NDArray[np.float64]:
    """Cost of a token per allocation: `overhead` and the price of each unit that runs.

    Summed price by price, so that allocations with the same number of units of each price cost the same to the last
    bit.

    Raises:
        InputError: if an allocation runs a unit without a price.
    """
    rows = [tuple(allocation) for allocation in allocations]
    flat = np.fromiter(chain.from_iterable(rows), np.int64)
    row = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    unknown = (flat < 0) | (flat >= len(prices))
    if unknown.any():
        wrong = tuple(map(int, rows[row[unknown][0]]))
        raise InputError(f"an allocation of units 0 to {len(prices) - 1} is required, not {wrong}")
    cost_A = np.full(len(rows), overhead)
    values, kind = np.unique(prices, return_inverse=True)
    for number, price in enumerate(values):
        cost_A += price * np.bincount(row[kind[flat] == number], minlength=len(rows))
    return cost_A


def _check(layers: int, budget: int) -> None:
    if not 0 <= budget <= layers:
        raise InputError(f"a budget of 0 to {layers} layers is required, but {budget} was given")


def compact(allocation: Iterable[int], *, none: str = "none") -> str:
    """An allocation as text, with consecutive layers as ranges: `0-3,7,9-29`; `none` if it is empty."""
    parts: list[list[int]] = []
    for layer in map(int, allocation):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts) or none


def parse(text: str) -> Allocation:
    """The allocation that `compact` writes as `text`: `0-3,7,9-29`; spaces are allowed, `none` is the empty one.

    Raises:
        InputError: if the text is no list of indices and rising ranges.
    """
    if text.strip() == "none":
        return ()
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise InputError(f"an allocation such as 0-3,7,9-29 is required, but '{text}' contains '{part.strip()}'")
        start, stop = int(first), int(last if dash else first)
        if stop < start:
            raise InputError(f"rising ranges are required, but '{text}' contains '{part.strip()}'; list its layers")
        if stop - start > MOST:
            raise InputError(f"at most {MOST} layers per range are possible, but '{text}' contains '{part.strip()}'")
        found.extend(range(start, stop + 1))
    return tuple(found)


def strip(allocation: Iterable[int], units: int) -> str:
    """A mask as one character per unit: # where it runs, . where it is skipped, and the count of runs from 2 on."""
    counts = [0] * units
    for unit in allocation:
        counts[unit] += 1
    return "".join(".#"[count] if count < 2 else str(min(count, 9)) for count in counts)
