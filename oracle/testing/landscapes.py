"""Synthetic qualities of masks, of known optimum: what a strategy can be measured on without a model.

In shapes, arrays of masks are (N, units).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from oracle.search.archive import Archive
from oracle.search.space import Space
from oracle.search.strategy import Problem, Strategy
from oracle.types import Allocation, Outcome, Proposal

__all__ = [
    "LANDSCAPES",
    "METRIC",
    "Landscape",
    "additive",
    "cliff",
    "deceptive",
    "gaps",
    "outcome",
    "pairs",
    "plateaus",
    "run",
]

METRIC = "quality"
"""Name of the metric of all landscapes."""

Quality = Callable[[np.ndarray], np.ndarray]
"""From masks, bool of shape (N, units), to their qualities, shape (N,)."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A quality of every mask of a model in which all units are free and cost one.

    Attributes:
        name: of the kind.
        units: number of units.
        quality: of masks.
        tolerance: allowed loss against the full model's quality.
    """

    name: str
    units: int
    quality: Quality
    tolerance: float

    @property
    def space(self) -> Space:
        """All masks of the units."""
        return Space.of(self.units)

    def problem(self, seed: int = 0, **guides: Any) -> Problem:
        """A search on it that knows nothing yet."""
        archive = Archive(self.space, METRIC, self.tolerance)
        return Problem(space=self.space, archive=archive, seed=seed, **guides)

    def evaluate(self, proposals: Iterable[Proposal]) -> list[Outcome]:
        """What an engine would return."""
        proposals = list(proposals)
        kept = np.zeros((len(proposals), self.units), dtype=bool)
        for row, proposal in zip(kept, proposals, strict=True):
            row[list(proposal.allocation)] = True
        return [
            outcome(proposal.allocation, float(quality), proposal.family)
            for proposal, quality in zip(proposals, self.quality(kept), strict=True)
        ]

    @cached_property
    def optimum(self) -> int:
        """The minimal budget, by exhaustion."""
        kept = (np.arange(2**self.units)[:, None] >> np.arange(self.units) & 1).astype(bool)
        quality = self.quality(kept)
        return int(kept[quality >= quality[-1] - self.tolerance - 1e-9].sum(axis=1).min())


def outcome(allocation: Allocation, quality: float, family: str = "random") -> Outcome:
    """An outcome of that quality, without an output."""
    values = {METRIC: quality}
    return Outcome(allocation=allocation, family=family, tokens=(), text="", finished=True, margin=1.0, quality=values)


def additive(seed: int, units: int = 12) -> Landscape:
    """Every unit has its own damage when it is skipped: most of them little, a few of them a lot."""
    damage, _, tolerance = _damages(seed, units)
    return Landscape(name="additive", units=units, quality=lambda kept: -(~kept @ damage), tolerance=tolerance)


def pairs(seed: int, units: int = 12) -> Landscape:
    """Additive, but two units lost together cost more, or less, than each alone."""
    damage, rng, tolerance = _damages(seed, units)
    together = np.triu(rng.normal(0, damage.mean() / 2, (units, units)), 1)

    def quality(kept: np.ndarray) -> np.ndarray:
        lost = (~kept).astype(float)
        return -(lost @ damage) - np.einsum("ni,ij,nj->n", lost, together, lost)

    return Landscape(name="pairs", units=units, quality=quality, tolerance=tolerance)


def deceptive(seed: int, units: int = 12) -> Landscape:
    """Groups of three that undo each other: to lose one or two is bad, all three hardly matters."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(units).reshape(-1, 3)
    # Damage of losing 0, 1, 2 and 3 of a group.
    trap = np.sort(rng.uniform(0.2, 1.0, (len(groups), 4)), axis=1)[:, [0, 1, 2, 0]] * [0, 1, 1, 0.5]
    tolerance = float(np.sort(trap[:, 3])[: rng.integers(1, len(groups))].sum() + rng.uniform(0.05, 0.3))

    def quality(kept: np.ndarray) -> np.ndarray:
        lost = (~kept)[:, groups].sum(axis=2)
        return -sum(trap[group, lost[:, group]] for group in range(len(groups)))

    return Landscape(name="deceptive", units=units, quality=quality, tolerance=tolerance)


def plateaus(seed: int, units: int = 12) -> Landscape:
    """A text of ten words, each right or wrong, compared with a reference that the full model meets in part.

    Each word wants its own few units; an early wrong word disturbs the later ones. Like ROUGE-L, the quality takes few
    values, is not monotonic, and a small budget may be lucky.
    """
    rng = np.random.default_rng(seed)
    words = 10
    wants = rng.gamma(0.5, size=(words, units)) * rng.gamma(1.0, size=units)
    wants /= wants.sum(axis=1, keepdims=True)
    together = rng.normal(0, 0.3 / units, (words, units, units))
    needed = rng.uniform(0.2, 0.7, words)
    reference = rng.random(words) < rng.uniform(0.5, 1.0)

    def quality(kept: np.ndarray) -> np.ndarray:
        lost = (~kept).astype(float)
        state = 1 - lost @ wants.T + np.einsum("ni,wij,nj->nw", lost, together, lost)
        disturbed = np.zeros(len(kept))
        same = np.zeros((len(kept), words), dtype=bool)
        for word in range(words):
            same[:, word] = state[:, word] - disturbed >= needed[word]
            disturbed += 0.05 * ~same[:, word]
        return (same == reference).sum(axis=1) / words

    return Landscape(name="plateaus", units=units, quality=quality, tolerance=0.0)


def cliff(seed: int, units: int = 12) -> Landscape:
    """A text of eight words as small models write them: a few units are essential, and nothing comes of few units.

    Shaped like what was measured on the embedded model: about half of the single units can go, one mask in ten of two
    thirds of them is good enough, and below half there is no more than luck.
    """
    rng = np.random.default_rng(seed)
    words = 8
    share = rng.gamma(1.0, size=units)
    share[[0, -1]] *= [6, 3]
    wants = rng.gamma(0.4, size=(words, units)) * share
    mean = wants.mean()
    together = np.triu(rng.normal(0, mean / 4, (words, units, units)), 1)
    slack = rng.gamma(2.0, size=words) * mean * units / 7
    reference = rng.random(words) < rng.uniform(0.6, 1.0)

    def quality(kept: np.ndarray) -> np.ndarray:
        lost = (~kept).astype(float)
        damage = lost @ wants.T + np.einsum("ni,wij,nj->nw", lost, together, lost)
        luck = np.sin(37.1 / mean * damage + np.arange(words)) > 0.97
        right = np.empty((len(kept), words), dtype=bool)
        for word in range(words):
            same = damage[:, word] <= slack[word]
            right[:, word] = np.where(same, reference[word], luck[:, word])
            # What follows a wrong word is likely to be wrong too.
            damage[:, word + 1 :] += np.where(same, 0, 0.08 * mean * units)[:, None]
        return right.sum(axis=1) / words

    return Landscape(name="cliff", units=units, quality=quality, tolerance=0.0)


LANDSCAPES: dict[str, Callable[..., Landscape]] = {
    "additive": additive,
    "pairs": pairs,
    "deceptive": deceptive,
    "plateaus": plateaus,
    "cliff": cliff,
}


def run(landscape: Landscape, strategy: Strategy, evaluations: int, batch: int, target: int = -1) -> list[int]:
    """Searches as the engine would; returns the cost of the incumbent after each evaluation.

    Ends early once the incumbent costs no more than `target`.
    """
    archive = strategy.problem.archive
    costs: list[int] = []
    while len(costs) < evaluations and not strategy.done:
        for result in landscape.evaluate(strategy.ask(min(batch, evaluations - len(costs)))):
            # Told one at a time only to know what was known when; the strategy decides between batches.
            strategy.tell([result])
            assert archive.upper is not None
            costs.append(archive.upper.cost)
        if costs[-1] <= target:
            break
    return costs


def gaps(landscape: Landscape, strategy: Strategy, points: Iterable[int], batch: int) -> list[int]:
    """Excess of the incumbent over the minimal budget after rising numbers of evaluations."""
    points = list(points)
    costs = run(landscape, strategy, points[-1], batch, target=landscape.optimum)
    return [costs[min(point, len(costs)) - 1] - landscape.optimum for point in points]


def _damages(seed: int, units: int) -> tuple[np.ndarray, np.random.Generator, float]:
    rng = np.random.default_rng(seed)
    damage = rng.lognormal(0.0, 1.5, units)
    return damage, rng, float(rng.uniform(0.02, 0.5) * damage.sum())
