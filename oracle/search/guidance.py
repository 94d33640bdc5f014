"""Guidance of a search besides its own outcomes: the model's hidden states, and other sequences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from oracle.search.archive import Archive, free_count
from oracle.search.space import Space
from oracle.types import Allocation

__all__ = ["Hints", "Memory"]

REMEMBERED = 64
"""Maximum number of qualifying masks stored per sequence, the cheapest ones."""


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Structure derived from one full pass over a sequence.

    Attributes:
        influence: block influence of each unit, 1 - cos(hidden state before it, after it), averaged over tokens
            (ShortGPT, arXiv 2403.03853): the least influential are the first to skip. Empty if unknown.
        masks: by budget, the mask proposed by dynamic programming over hidden states (CLaSp, arXiv 2505.24196).
    """

    influence: tuple[float, ...] = ()
    masks: Mapping[float, Allocation] = field(default_factory=dict)

    def keep(self, space: Space, count: int) -> Allocation:
        """The mask of the `count` free units of the highest influence; the first among equals."""
        return _highest(space, self.influence, count)


class Memory:
    """Masks that worked on the finished sequences of a run, as starting points of later searches.

    Independent of the order of the sequences.
    """

    def __init__(self) -> None:
        self._qualified: dict[Allocation, set[int]] = {}
        self._useful: list[tuple[float, ...]] = []
        self._sequences = 0
        self._suggested: dict[tuple[Space, int], list[Allocation]] = {}

    def learn(self, archive: Archive) -> None:
        """Adds the archive of a finished search: its cheapest qualifying masks, and each unit's effect on quality."""
        self._suggested.clear()
        space = archive.space
        masks = [one for one in archive.outcomes.values() if archive.free_count(one.allocation) is not None]
        qualified = [one.allocation for one in masks if archive.qualifies(one) and one.allocation != space.full]
        for mask in sorted(qualified, key=lambda mask: (space.cost(mask), mask))[:REMEMBERED]:
            self._qualified.setdefault(mask, set()).add(self._sequences)
        self._sequences += 1
        known = [one for one in sorted(masks, key=lambda one: one.allocation) if not one.dropped]
        effects = _effects(space, [one.allocation for one in known], [archive.quality(one) for one in known])
        if effects is not None:
            self._useful.append(effects)

    @property
    def usefulness(self) -> tuple[float, ...]:
        """Each unit's contribution to quality, scaled to a sum of 1 per sequence and averaged; empty before `learn`."""
        # `fsum` does not depend on the order of the sequences.
        return tuple(math.fsum(column) / len(self._useful) for column in zip(*self._useful, strict=True))

    def suggest(self, space: Space, count: int) -> list[Allocation]:
        """At most `count` masks of the space to try first, the cheapest first.

        Half of them would together have saved most on the sequences so far: a greedy cover, in which a mask counts for
        its saving over those before it. The others keep the most useful units, at evenly spread budgets.
        """
        if (space, count) not in self._suggested:
            self._suggested[space, count] = self._suggest(space, count)
        return list(self._suggested[space, count])

    def _suggest(self, space: Space, count: int) -> list[Allocation]:
        cover = self._cover(space, count)
        if self._useful:
            spread = np.linspace(0, len(space.free), count - count // 2 + 2)[1:-1].round().astype(int)
            ranked = [_highest(space, self.usefulness, int(budget)) for budget in spread]
            cover = cover[: count // 2] + [mask for mask in ranked if mask not in cover[: count // 2]]
        return sorted(set(cover[:count]), key=lambda mask: (space.cost(mask), mask))

    def _cover(self, space: Space, count: int) -> list[Allocation]:
        least = dict.fromkeys(range(self._sequences), space.cost(space.full))

        def entry(mask: Allocation) -> tuple[float, float, Allocation]:
            cost = space.cost(mask)
            return -math.fsum(max(0.0, least[one] - cost) for one in self._qualified[mask]), cost, mask

        heap = [entry(mask) for mask in self._qualified if free_count(space, mask) is not None]
        heapify(heap)
        cover: list[Allocation] = []
        while heap and len(cover) < count:
            saving, cost, mask = heappop(heap)
            # A mask's saving only shrinks as others are taken, so the heap's values are bounds.
            if entry(mask) != (saving, cost, mask):
                heappush(heap, entry(mask))
            elif saving < 0:
                cover.append(mask)
                least |= {one: min(least[one], cost) for one in self._qualified[mask]}
        return cover


def _highest(space: Space, worth: tuple[float, ...], count: int) -> Allocation:
    ranked = sorted(space.free, key=lambda unit: (-worth[unit], unit))
    return space.mask(frozenset(ranked[:count]))


def _effects(space: Space, masks: list[Allocation], qualities: list[float]) -> tuple[float, ...] | None:
    """Effect of each unit on the quality, by ridge regression, negative effects set to 0; None if all are 0."""
    kept = np.array([np.isin(np.arange(space.units), mask) for mask in masks], dtype=float).reshape(-1, space.units)
    if len(kept) < 2:
        return None
    kept -= kept.mean(axis=0)
    slopes = np.linalg.solve(kept.T @ kept + np.eye(space.units), kept.T @ (np.array(qualities) - np.mean(qualities)))
    slopes = np.clip(slopes, 0, None)
    return tuple((slopes / slopes.sum()).tolist()) if slopes.sum() > 0 else None
