"""A Gaussian process over skip masks: which of the untested ones are likely to qualify.

Shapes: N masks evaluated, M masks asked about, B masks of a batch, F free units, T ways to weigh the units.
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
"""Distances, in shares of F, over which qualities are alike: the longer, the nearer the model is to an additive one."""

NOISES = (1e-4, 0.05)
"""Share of the variance that no mask nearby explains: smooth qualities, or ones that come in steps."""

BAND = 0.1
"""Width, in shares of all that the units are worth, over which mean and spread are averaged."""

DOUBT = 2.0
"""How many masks' worth of the overall spread is mixed into the spread at each level."""

GUESSES = 12
"""Times that the qualities of dropped masks are estimated from one another; more change little."""


@dataclass(frozen=True)
class _Level:
    """Mean and spread of the quality against the share of the units' worth that a mask keeps.

    Outputs of a few units are all alike, and bad; those of almost all units differ. A process of one variance for both
    would expect miracles of the former.
    """

    share_N: Floats
    quality_N: Floats

    def __call__(self, share_M: Floats) -> tuple[Floats, Floats]:
        near_MN = self._near(share_M)
        total_M = near_MN.sum(axis=1)
        square_M = (near_MN @ self._squares + DOUBT * self._squares.mean()) / (total_M + DOUBT)
        return near_MN @ self.quality_N / total_M, np.sqrt(square_M + 1e-12)

    @cached_property
    def known(self) -> tuple[Floats, Floats]:
        """Mean and spread at the masks themselves."""
        return self(self.share_N)

    @cached_property
    def _squares(self) -> Floats:
        near_NN = self._near(self.share_N)
        return (self.quality_N - near_NN @ self.quality_N / near_NN.sum(axis=1)) ** 2

    def _near(self, share_M: Floats) -> Floats:
        return np.exp(-0.5 * ((share_M[:, None] - self.share_N) / BAND) ** 2) + 1e-12


@dataclass(frozen=True)
class _Fit:
    """What explains the qualities: a level, and around it a process of a reach, a noise and a scale."""

    worth_F: Floats
    level: _Level
    reach: float
    noise: float
    chol_NN: Floats
    weight_N: Floats
    scale: float
    likelihood: float


class Surrogate:
    """Quality as a level plus a process whose correlation falls with the number of units that differ.

    exp(-distance / reach) is a product over units, so it contains interactions of every order, with weights that fall
    with the order. Reach, noise and the weighing of units are those of the highest marginal likelihood (Rasmussen &
    Williams 2006, ch. 5). Of a dropped mask it is known only that its quality is below the threshold; what the others
    let expect of it under that condition stands in for it (mean of the truncated normal distribution around the
    leave-one-out prediction, their ch. 5.4.2).

    Args:
        kept_NF: masks that were evaluated.
        quality_N: their qualities, minus infinity where one was dropped.
        threshold: the quality that has to be reached.
        worth_TF: how much each unit may be worth, one row an opinion; each sums to 1.
    """

    def __init__(self, kept_NF: Masks, quality_N: Floats, threshold: float, worth_TF: Floats) -> None:
        self._kept_NF = kept_NF.astype(float)
        self._threshold = threshold
        self._worth_TF = worth_TF
        dropped_N = ~np.isfinite(quality_N)
        if dropped_N.any():
            quality_N = self._estimate(quality_N, dropped_N)
        self._fit = self._best(quality_N)

    def log_chance(self, kept_MF: Masks) -> Floats:
        """Logarithm of the probability that each mask reaches the threshold."""
        mean_M, spread_M, white_NM = self._predict(kept_MF.astype(float))
        left_M = np.clip(1 - np.einsum("nm,nm->m", white_NM, white_NM), 1e-9, None)
        return self._log_chance(mean_M, spread_M * np.sqrt(self._fit.scale * left_M))

    def choose(self, kept_MF: Masks, bonus_BM: Floats) -> list[int]:
        """B different rows, each of the highest log chance + bonus once those chosen before are evaluated.

        What a chosen one will turn out to be is taken to be its mean, which leaves the means but lowers the deviations
        near it (Desautels et al. 2014): so the masks of a batch do not all test the same guess.

        Args:
            kept_MF: the masks to choose from, at least B.
            bonus_BM: what is added to the log chance of each, for each choice.
        """
        kept = kept_MF.astype(float)
        mean_M, spread_M, white_NM = self._predict(kept)
        covariance_MM = self._fit.scale * (np.exp(-_distance(kept, kept) / self._fit.reach) - white_NM.T @ white_NM)
        chosen: list[int] = []
        for bonus_M in bonus_BM:
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
        near_MN = np.exp(-_distance(kept, self._kept_NF) / fit.reach)
        white_NM = scipy.linalg.solve_triangular(fit.chol_NN, near_MN.T, lower=True, check_finite=False)
        return mean_M + spread_M * (near_MN @ fit.weight_N), spread_M, white_NM

    def _log_chance(self, mean_M: Floats, deviation_M: Floats) -> Floats:
        return scipy.special.log_ndtr((mean_M - self._threshold) / deviation_M)

    def _best(self, quality_N: Floats) -> _Fit:
        levels = [_Level(self._kept_NF @ worth_F, quality_N) for worth_F in self._worth_TF]
        distance_NN = _distance(self._kept_NF, self._kept_NF)
        fits = []
        for share, noise in product(REACHES, NOISES):
            reach = share * self._kept_NF.shape[1]
            near_NN = np.exp(-distance_NN / reach) + noise * np.eye(len(distance_NN))
            chol_NN = scipy.linalg.cholesky(near_NN, lower=True, overwrite_a=True, check_finite=False)
            fits += [_fit(*pair, reach, noise, chol_NN) for pair in zip(self._worth_TF, levels, strict=True)]
        return max(fits, key=lambda fit: fit.likelihood)

    def _estimate(self, quality_N: Floats, dropped_N: Masks) -> Floats:
        """The qualities, with what is to be expected in the place of the dropped ones."""
        known = quality_N[~dropped_N]
        below = known[known < self._threshold]
        start = below.mean() if len(below) else self._threshold - max(known.std(), 1e-3)
        quality_N = np.where(dropped_N, start, quality_N)
        fit = self._best(quality_N)
        precision_N = np.diag(scipy.linalg.cho_solve((fit.chol_NN, True), np.eye(len(quality_N)), check_finite=False))
        # The deviations stay: estimates that hang together would lower them, until all drift to the threshold.
        _, spread_N = fit.level.known
        deviation_N = spread_N * np.sqrt(fit.scale / precision_N)
        for _ in range(GUESSES):
            mean_N = quality_N - spread_N * fit.weight_N / precision_N
            room_N = (self._threshold - mean_N) / deviation_N
            hazard_N = np.exp(-0.5 * room_N**2 - scipy.special.log_ndtr(room_N)) / math.sqrt(2 * math.pi)
            quality_N = np.where(dropped_N, mean_N - deviation_N * hazard_N, quality_N)
            fit = _fit(fit.worth_F, _Level(fit.level.share_N, quality_N), fit.reach, fit.noise, fit.chol_NN)
        return quality_N


def _fit(worth_F: Floats, level: _Level, reach: float, noise: float, chol_NN: Floats) -> _Fit:
    mean_N, spread_N = level.known
    rest_N = (level.quality_N - mean_N) / spread_N
    weight_N = scipy.linalg.cho_solve((chol_NN, True), rest_N, check_finite=False)
    scale = max(float(rest_N @ weight_N) / len(rest_N), 1e-12)
    volume = 0.5 * len(rest_N) * math.log(scale) + float(np.log(np.diag(chol_NN)).sum() + np.log(spread_N).sum())
    return _Fit(worth_F, level, reach, noise, chol_NN, weight_N, scale, -volume)


def _distance(one: Floats, other: Floats) -> Floats:
    """Number of units in which masks differ, as 0/1 floats."""
    return one.sum(axis=1)[:, None] + other.sum(axis=1) - 2 * one @ other.T
