"""Candidate masks for the next batch, ranked by a model of the quality.

In shapes, A is the evaluated masks, M the considered ones, X the estimates of the units' worth, Y the masks of a batch.
"""

from itertools import chain

import numpy as np

from oracle.search.archive import COST_SLACK
from oracle.search.strategy import Problem
from oracle.search.surrogate import Floats, Masks, Surrogate
from oracle.types import Allocation

__all__ = ["Promising"]

EXPONENTS = (0.0, 1.0, 3.0)
"""Exponents on the saving in the acquisition score, cycled within a batch: from small, likely steps to large ones."""

POOL = 256
"""Number of random candidates, and of the best candidates from which a batch is chosen."""

EXPANSIONS = 3
"""Number of times that the neighbours of the best candidates are added."""

LIMIT = 400
"""Maximum number of outcomes that the model is fitted to: those of quality nearest to the threshold."""


class Promising:
    """Untested masks that cost less than the incumbent, given an archive that holds the full allocation."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        space, archive = problem.space, problem.archive
        assert archive.threshold is not None and archive.least is not None and archive.upper is not None, (
            "the full allocation comes first"
        )
        self._space, self._rng = space, rng
        self._free = np.array(space.free)
        self._cost_F = np.array(space.costs)[self._free]
        self._room = space.cost(archive.upper.allocation) - space.cost(space.mask(frozenset()))
        self._still_open = np.array([not archive.exhausted(count) for count in range(len(self._free) + 1)])
        # Sorted, because sums of floats depend on their order.
        masks = [one for one in sorted(archive.outcomes) if archive.free_count(one) is not None]
        runs = np.zeros((len(masks), space.units), dtype=bool)
        runs[np.repeat(np.arange(len(masks)), [len(mask) for mask in masks]), list(chain.from_iterable(masks))] = True
        self._tested_AF = runs[:, self._free]
        self._quality_A = np.array([archive.quality(archive.outcomes[mask]) for mask in masks])
        near = np.argsort(np.abs(self._quality_A - archive.threshold), kind="stable")[:LIMIT]
        self._model = Surrogate(self._tested_AF[near], self._quality_A[near], archive.least, _worth(problem))

    def best(self, count: int) -> list[Allocation]:
        """At most `count` of them, each the best candidate once those before it are evaluated."""
        pool_MF = self._new(np.vstack([self._random(), *(_around(row) for row in self._cheapest_best())]))
        for _ in range(EXPANSIONS):
            pool_MF = self._new(np.vstack([pool_MF, *(_around(row) for row in self._top(pool_MF, each=2))]))
        pool_MF = self._top(pool_MF, each=POOL // len(EXPONENTS))
        exponents_Y = np.resize(EXPONENTS, min(count, len(pool_MF)))
        chosen = self._model.choose(pool_MF, exponents_Y[:, None] * self._log_saving(pool_MF)) if len(pool_MF) else []
        return [self._space.mask(frozenset(self._free[pool_MF[row]].tolist())) for row in chosen]

    def _random(self) -> Masks:
        F = len(self._free)
        counts = self._rng.choice(np.flatnonzero(self._still_open), size=(POOL, 1))
        return np.argsort(self._rng.random((POOL, F)), axis=1) < counts

    def _cheapest_best(self) -> Masks:
        """The evaluated masks of the highest quality that cost no more than the incumbent."""
        within_AF = self._tested_AF[np.argsort(-self._quality_A, kind="stable")]
        return within_AF[within_AF @ self._cost_F <= self._room + COST_SLACK][:4]

    def _new(self, kept_MF: Masks) -> Masks:
        """The distinct untested masks that cost less than the incumbent."""
        cheaper_M = kept_MF @ self._cost_F < self._room - COST_SLACK
        kept_MF = kept_MF[cheaper_M & self._still_open[kept_MF.sum(axis=1)]]
        packed = np.packbits(np.vstack([self._tested_AF, kept_MF]), axis=1)
        first = np.unique(packed, axis=0, return_index=True)[1] - len(self._tested_AF)
        return kept_MF[first[first >= 0]]

    def _log_saving(self, kept_MF: Masks) -> Floats:
        return np.log(self._room - kept_MF @ self._cost_F)

    def _top(self, kept_MF: Masks, each: int) -> Masks:
        """The best masks by each exponent."""
        if not len(kept_MF):
            return kept_MF
        chance_M, saving_M = self._model.log_chance(kept_MF), self._log_saving(kept_MF)
        orders = [np.argsort(-(chance_M + exponent * saving_M), kind="stable")[:each] for exponent in EXPONENTS]
        return kept_MF[np.unique(np.concatenate(orders))]


def _around(kept_F: Masks) -> Masks:
    """The masks that differ in one unit or in two."""
    one, other = np.triu_indices(len(kept_F))
    eye_FF = np.eye(len(kept_F), dtype=bool)
    return kept_F ^ (eye_FF[one] | eye_FF[other])


def _worth(problem: Problem) -> Floats:
    """Estimates of each free unit's worth: equal worth, and those of hints and of other sequences."""
    free = list(problem.space.free)
    opinions = [np.ones(problem.space.units)]
    if problem.hints is not None and problem.hints.influence:
        opinions.append(np.array(problem.hints.influence))
    if problem.memory is not None and problem.memory.usefulness:
        opinions.append(np.array(problem.memory.usefulness))
    worth_XF = np.clip([one[free] for one in opinions], 0, None)
    total_X = worth_XF.sum(axis=1, keepdims=True)
    return (worth_XF / np.maximum(total_X, COST_SLACK))[total_X[:, 0] > 0]
