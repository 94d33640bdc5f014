"""A Gaussian process over skip masks: predicts which untested ones qualify.

In shapes, A is the evaluated masks, M the considered ones, X the estimates of the units' worth, Y the masks of a batch.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import scipy  # imports its modules on first use
from numpy.typing import NDArray

__all__ = ["Floats", "Masks", "Surrogate"]

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]

REACHES = (0.15, 0.4, 1.0, 2.5)
"""Correlation lengths, in multiples of F: the longer, the closer the model is to an additive one."""

NOISES = (1e-4, 0.05)
"""Shares of the variance not explained by nearby masks: smooth qualities, or stepwise ones."""

BAND = 0.1
"""Bandwidth, as a share of the total worth of the units, over which mean and spread are averaged."""

PRIOR_MASKS = 2.0
"""Weight, in masks, of the overall spread in the spread at each level."""

ITERATIONS = 12
"""Number of iterations that estimate the qualities of dropped masks; more change little."""


@dataclass(frozen=True)
class _Level:
    """Mean and spread of the quality against the share of the units' worth that a mask keeps.

    Outputs of a few units are all alike, and bad; those of almost all units differ. A process with one variance for
    both would overestimate the former.
    """

    share_A: Floats
    quality_A: Floats

    def __call__(self, share_M: Floats) -> tuple[Floats, Floats]:
        near_MA = self._near(share_M)
        total_M = near_MA.sum(axis=1)
        square_M = (near_MA @ self._squares + PRIOR_MASKS * self._squares.mean()) / (total_M + PRIOR_MASKS)
        return near_MA @ self.quality_A / total_M, np.sqrt(square_M + 1e-12)

    @cached_property
    def known(self) -> tuple[Floats, Floats]:
        """Mean and spread at the masks themselves."""
        return self(self.share_A)

    @cached_property
    def _squares(self) -> Floats:
        near_AA = self._near(self.share_A)
        return (self.quality_A - near_AA @ self.quality_A / near_AA.sum(axis=1)) ** 2

    def _near(self, share_M: Floats) -> Floats:
        return np.exp(-0.5 * ((share_M[:, None] - self.share_A) / BAND) ** 2) + 1e-12


@dataclass(frozen=True)
class _Fit:
    """A fitted model: a level, and around it a process with a correlation length, a noise and a scale."""

    worth_F: Floats
    level: _Level
    reach: float
    noise: float
    chol_AA: Floats
    weight_A: Floats
    scale: float
    likelihood: float


class Surrogate:
    """Quality as a level plus a process whose correlation falls with the number of units that differ.

    exp(-distance / reach) is a product over units, so it contains interactions of every order, with weights that fall
    with the order. Reach, noise and the worth of units are those of the highest marginal likelihood (Rasmussen &
    Williams 2006, ch. 5). A dropped mask's quality is only known to be below the threshold; it is replaced by its
    conditional expectation given the others (mean of the truncated normal distribution around the leave-one-out
    prediction, their ch. 5.4.2).

    Args:
        kept_AF: masks that were evaluated.
        quality_A: their qualities, minus infinity where one was dropped.
        threshold: the quality required.
        worth_XF: estimates of each unit's worth, one per row; each sums to 1.
    """

    def __init__(self, kept_AF: Masks, quality_A: Floats, threshold: float, worth_XF: Floats) -> None:
        self._kept_AF = kept_AF.astype(float)
        self._threshold = threshold
        self._worth_XF = worth_XF
        dropped_A = ~np.isfinite(quality_A)
        if dropped_A.any():
            quality_A = self._estimate(quality_A, dropped_A)
        self._fit = self._best(quality_A)

    def log_chance(self, kept_MF: Masks) -> Floats:
        """Logarithm of the probability that each mask reaches the threshold."""
        mean_M, spread_M, white_AM = self._predict(kept_MF.astype(float))
        left_M = np.clip(1 - np.einsum("nm,nm->m", white_AM, white_AM), 1e-9, None)
        return self._log_chance(mean_M, spread_M * np.sqrt(self._fit.scale * left_M))

    def choose(self, kept_MF: Masks, bonus_YM: Floats) -> list[int]:
        """Distinct masks, one per row of bonuses, each of the highest log chance + bonus once those before it are
        known.

        A chosen mask's outcome is taken to be its mean, which leaves the means but lowers the deviations near it
        (Desautels et al. 2014): so the masks of a batch do not all test the same guess.
        """
        kept = kept_MF.astype(float)
        mean_M, spread_M, white_AM = self._predict(kept)
        covariance_MM = self._fit.scale * (np.exp(-_distance(kept, kept) / self._fit.reach) - white_AM.T @ white_AM)
        chosen: list[int] = []
        for bonus_M in bonus_YM:
            deviation_M = spread_M * np.sqrt(np.clip(np.diag(covariance_MM), 1e-9, None))
            score_M = bonus_M + self._log_chance(mean_M, deviation_M)
            score_M[chosen] = -np.inf
            best = int(np.argmax(score_M))
            chosen.append(best)
            variance = max(covariance_MM[best, best], 0.0) + self._fit.noise * self._fit.scale
            covariance_MM -= np.outer(covariance_MM[best] / variance, covariance_MM[best])
        return chosen

    def _predict(self, kept: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean of each mask's quality, spread of its level, and its whitened correlations with the evaluated ones."""
        fit = self._fit
        mean_M, spread_M = fit.level(kept @ fit.worth_F)
        near_MA = np.exp(-_distance(kept, self._kept_AF) / fit.reach)
        white_AM = scipy.linalg.solve_triangular(fit.chol_AA, near_MA.T, lower=True, check_finite=False)
        return mean_M + spread_M * (near_MA @ fit.weight_A), spread_M, white_AM

    def _log_chance(self, mean_M: Floats, deviation_M: Floats) -> Floats:
        return scipy.special.log_ndtr((mean_M - self._threshold) / deviation_M)

    def _best(self, quality_A: Floats) -> _Fit:
        levels = [_Level(self._kept_AF @ worth_F, quality_A) for worth_F in self._worth_XF]
        distance_AA = _distance(self._kept_AF, self._kept_AF)
        fits = []
        for share, noise in product(REACHES, NOISES):
            reach = share * self._kept_AF.shape[1]
            near_AA = np.exp(-distance_AA / reach) + noise * np.eye(len(distance_AA))
            chol_AA = scipy.linalg.cholesky(near_AA, lower=True, overwrite_a=True, check_finite=False)
            fits += [_fit(*pair, reach, noise, chol_AA) for pair in zip(self._worth_XF, levels, strict=True)]
        return max(fits, key=lambda fit: fit.likelihood)

    def _estimate(self, quality_A: Floats, dropped_A: Masks) -> Floats:
        """The qualities, with expectations in place of the dropped ones."""
        known = quality_A[~dropped_A]
        below = known[known < self._threshold]
        start = below.mean() if len(below) else self._threshold - max(known.std(), 1e-3)
        quality_A = np.where(dropped_A, start, quality_A)
        fit = self._best(quality_A)
        precision_A = np.diag(scipy.linalg.cho_solve((fit.chol_AA, True), np.eye(len(quality_A)), check_finite=False))
        # The deviations stay fixed: correlated estimates would lower them, until all drift to the threshold.
        _, spread_A = fit.level.known
        deviation_A = spread_A * np.sqrt(fit.scale / precision_A)
        for _ in range(ITERATIONS):
            mean_A = quality_A - spread_A * fit.weight_A / precision_A
            room_A = (self._threshold - mean_A) / deviation_A
            hazard_A = np.exp(-0.5 * room_A**2 - scipy.special.log_ndtr(room_A)) / math.sqrt(2 * math.pi)
            quality_A = np.where(dropped_A, mean_A - deviation_A * hazard_A, quality_A)
            fit = _fit(fit.worth_F, _Level(fit.level.share_A, quality_A), fit.reach, fit.noise, fit.chol_AA)
        return quality_A


def _fit(worth_F: Floats, level: _Level, reach: float, noise: float, chol_AA: Floats) -> _Fit:
    mean_A, spread_A = level.known
    rest_A = (level.quality_A - mean_A) / spread_A
    weight_A = scipy.linalg.cho_solve((chol_AA, True), rest_A, check_finite=False)
    scale = max(float(rest_A @ weight_A) / len(rest_A), 1e-12)
    volume = 0.5 * len(rest_A) * math.log(scale) + float(np.log(np.diag(chol_AA)).sum() + np.log(spread_A).sum())
    return _Fit(worth_F, level, reach, noise, chol_AA, weight_A, scale, -volume)


def _distance(one: Floats, other: Floats) -> Floats:
    """Number of units in which masks differ, as 0/1 floats."""
    return one.sum(axis=1)[:, None] + other.sum(axis=1) - 2 * one @ other.T
