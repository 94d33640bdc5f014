"""Searches for a draft mask by an objective that others compute; none needs a model.

Masks are allocations over units: the sublayers that a draft runs (unit u is the attention of layer u // 2 if u is even,
its MLP otherwise), or whole layers.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from oracle.search.surrogate import Masks, Surrogate
from oracle.types import Allocation

__all__ = ["SKIP_RATIO", "Objective", "bayesian", "sublayers_of", "swift"]

Objective = Callable[[Seq[Allocation]], Seq[float]]
"""Values of masks, higher is better."""

BATCH = 8
"""Masks that the Gaussian process proposes at a time."""

POOL = 192
"""Random masks among the candidates of the Gaussian process."""

LIKELY = 256
"""Most likely candidates, from which a batch is chosen."""

AROUND = 4
"""Best masks whose neighbours are candidates."""

RANDOM = (0.1, 0.5)
"""Least and largest share of units that a random candidate skips."""

SKIP_RATIO = 0.45
"""SWIFT's share of skipped inner sublayers (code: `--skip-ratio`)."""

BAYES_INTERVAL = 25
"""SWIFT's Bayesian step comes every 25th (code: `--bayes-interval`)."""

ENOUGH = 0.95
"""SWIFT stops at this agreement (code: `--max-score`)."""


def bayesian(
    objective: Objective, starts: Seq[Allocation], *, units: int, evaluations: int, seed: int, known: int = 0
) -> dict[Allocation, float]:
    """Values of the masks that a Gaussian process over skip masks evaluates, the given ones first.

    Draft & Verify (arXiv 2309.08168) searches 2L variables in [0, 1], cut at 0.5, by Bayesian optimisation with a
    Matern kernel; here the process is that of `oracle.search.surrogate`, whose variables are binary.

    Args:
        objective: computes values.
        starts: masks to begin with, not all equal.
        units: number of units.
        evaluations: number of masks beyond the first `known` starts.
        seed: of random candidates.
        known: number of starts that cost nothing, because their values are known.
    """
    rng = np.random.default_rng([seed, 3])
    values: dict[Allocation, float] = {}

    def evaluate(masks: Seq[Allocation]) -> None:
        new = [mask for mask in dict.fromkeys(masks) if mask not in values]
        values.update(zip(new, map(float, objective(new)), strict=True))

    starts = list(dict.fromkeys(starts))
    evaluate(starts[: known + evaluations])
    while len(values) < known + evaluations:
        rows_AU = _rows(list(values), units)
        quality_A = np.array(list(values.values()))
        pool_MU = _candidates(rows_AU[np.argsort(-quality_A, kind="stable")[:AROUND]], rows_AU, rng)
        if not len(pool_MU):
            break
        count = min(BATCH, known + evaluations - len(values), len(pool_MU))
        chosen = _proposed(rows_AU, quality_A, pool_MU, count)
        evaluate([tuple(np.flatnonzero(pool_MU[place]).tolist()) for place in chosen])
    return values


def swift(
    objective: Objective,
    *,
    layers: int,
    evaluations: int,
    seed: int,
    separable: bool = True,
    skip_ratio: float = SKIP_RATIO,
) -> Allocation:
    """SWIFT's layer set (arXiv 2410.06916, as released), over sublayers.

    Every second inner layer is skipped at first. Then sets that skip 45 % of the inner sublayers are drawn at random,
    and every 25th by Bayesian optimisation; one that agrees more replaces the current one; the search stops at an
    agreement of 0.95. The first and the last layer always run. Theirs allows 1,000 steps, one per decoded round.

    Args:
        objective: share of context tokens that masks predict.
        layers: number of layers.
        evaluations: number of steps.
        seed: of the random sets.
        separable: whether attention and MLP are skipped apart; otherwise whole layers are.
        skip_ratio: share of the inner sublayers that is skipped.
    """
    width = 2 if separable else 1
    inner = np.arange(width, width * (layers - 1))
    skipped = int(len(inner) * skip_ratio)
    rng = np.random.default_rng([seed, 4])

    def kept(lost: NDArray[np.int64]) -> Allocation:
        mask = tuple(sorted(set(range(width * layers)) - set(lost.tolist())))
        return mask if separable else sublayers_of(mask)

    best = sublayers_of([layer for layer in range(layers) if layer % 2 == 0 or layer in (0, layers - 1)])
    score = 0.0  # as released: the first set is not scored
    if not skipped:
        return best
    values: dict[Allocation, float] = {}
    step = 0
    while step < evaluations and score <= ENOUGH:
        count = min(BAYES_INTERVAL - 1, evaluations - step)
        masks = [kept(rng.choice(inner, skipped, replace=False)) for _ in range(count)]
        if step + count < evaluations:
            # The process learns what was drawn before; the draws of its own round do not depend on scores.
            values.update(zip(masks, map(float, objective(masks)), strict=True))
            pool = [kept(rng.choice(inner, skipped, replace=False)) for _ in range(POOL)]
            pool = [mask for mask in dict.fromkeys(pool) if mask not in values]
            if pool:
                rows_AU, pool_MU = _rows(list(values), 2 * layers), _rows(pool, 2 * layers)
                masks.append(pool[_proposed(rows_AU, np.array(list(values.values())), pool_MU, 1)[0]])
        new = [mask for mask in masks if mask not in values]
        values.update(zip(new, map(float, objective(new)), strict=True))
        for mask in masks:
            step += 1
            if score <= ENOUGH and values[mask] > score:
                best, score = mask, values[mask]
    return best


def sublayers_of(layers: Seq[int]) -> Allocation:
    """Both sublayers of some layers."""
    return tuple(unit for layer in layers for unit in (2 * layer, 2 * layer + 1))


def _proposed(rows_AU: Masks, quality_A: NDArray[np.float64], pool_MU: Masks, count: int) -> list[int]:
    worth = np.full((1, rows_AU.shape[1]), 1 / rows_AU.shape[1])
    model = Surrogate(rows_AU, quality_A, float(quality_A.max()), worth)
    likely = np.argsort(-model.log_chance(pool_MU), kind="stable")[:LIKELY]
    chosen = model.choose(pool_MU[likely], np.zeros((min(count, len(likely)), len(likely))))
    return likely[chosen].tolist()


def _candidates(best_MU: Masks, known_AU: Masks, rng: np.random.Generator) -> Masks:
    """Unknown masks: one or two units from the best ones, and random ones; none that skips nothing, or everything."""
    units = best_MU.shape[1]
    one, other = np.triu_indices(units)
    eye = np.eye(units, dtype=np.bool_)
    around = [row ^ (eye[one] | eye[other]) for row in best_MU]
    skipped = rng.uniform(*RANDOM, size=(POOL, 1))
    pool = np.unique(np.vstack([*around, rng.random((POOL, units)) >= skipped]), axis=0)
    known = {row.tobytes() for row in known_AU}
    return pool[[row.tobytes() not in known and bool(row.any()) and not row.all() for row in pool]]


def _rows(masks: Seq[Allocation], units: int) -> Masks:
    rows_AU = np.zeros((len(masks), units), dtype=np.bool_)
    for row, mask in enumerate(masks):
        rows_AU[row, list(mask)] = True
    return rows_AU
