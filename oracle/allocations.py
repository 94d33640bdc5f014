"""Named allocations: full depth, unified skipping, early exit, random masks for a budget."""

from collections.abc import Iterable

import numpy as np

from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["compact", "early_exit", "full", "random_mask", "unified"]


def full(layers: int) -> Allocation:
    """Every layer, in order."""
    return tuple(range(layers))


def early_exit(layers: int, budget: int) -> Allocation:
    """The first `budget` layers: everything above is skipped."""
    _check(layers, budget)
    return tuple(range(budget))


def unified(layers: int, budget: int) -> Allocation:
    """Evenly spread layers, the first and the last among them (Liu et al. 2024, arXiv 2404.06954).

    With n layers to keep, the interval is int(L / (n - 1)); 0, L-1 and the rising multiples of the interval are kept
    until there are n. Budgets that the published formula divides by zero on keep nothing (0) or layer 0 (1).

    Args:
        layers: L.
        budget: n, the number of layers to keep.
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


def random_mask(layers: int, budget: int, rng: np.random.Generator) -> Allocation:
    """A uniform draw among all masks of `budget` layers, fixed for a whole generation."""
    _check(layers, budget)
    return tuple(sorted(int(layer) for layer in rng.choice(layers, size=budget, replace=False)))


def _check(layers: int, budget: int) -> None:
    if not 0 <= budget <= layers:
        raise InputError(f"a budget of 0 to {layers} layers is required, but {budget} was given")


def compact(allocation: Iterable[int], *, none: str = "none") -> str:
    """An allocation as text: runs of layers as ranges, such as `0-3,7,9-29`; `none` without layers."""
    layers = [int(layer) for layer in allocation]
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts) or none
