"""The model of the quality: what it predicts, how sure it is, and what it chooses."""

import numpy as np
import pytest

from oracle.search.surrogate import Surrogate
from oracle.testing.landscapes import additive, cliff, pairs

EVEN = np.full((1, 12), 1 / 12)


def masks(seed: int, count: int, units: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.unique(rng.random((count, units)) < rng.random((count, 1)), axis=0)


@pytest.mark.parametrize("kind", [additive, pairs])
def test_predicts_smooth_qualities(kind) -> None:
    landscape = kind(1)
    kept, others = masks(0, 120), masks(1, 200)
    model = Surrogate(kept, landscape.quality(kept), 0.0, EVEN)
    mean, _, _ = model._predict(others.astype(float))
    assert np.corrcoef(mean, landscape.quality(others))[0, 1] > 0.95


@pytest.mark.parametrize("kind", [additive, pairs, cliff])
def test_its_chances_are_about_right(kind) -> None:
    chances, hits = [], []
    for seed in range(6):
        landscape = kind(seed)
        kept, others = masks(seed, 80), masks(seed + 100, 300)
        threshold = float(np.quantile(landscape.quality(kept), 0.7)) - 1e-9
        model = Surrogate(kept, landscape.quality(kept), threshold, EVEN)
        chances.append(np.exp(model.log_chance(others)))
        hits.append(landscape.quality(others) >= threshold)
    chance, hit = np.concatenate(chances), np.concatenate(hits)
    assert abs(chance.mean() - hit.mean()) < 0.12
    assert hit[chance > 0.8].mean() > 0.75
    assert hit[chance < 0.2].mean() < 0.15


def test_what_was_evaluated_is_certain() -> None:
    landscape = additive(2)
    kept = masks(0, 60)
    quality = landscape.quality(kept)
    threshold = float(np.median(quality)) + 1e-6
    chance = np.exp(Surrogate(kept, quality, threshold, EVEN).log_chance(kept))
    clear = np.abs(quality - threshold) > 0.1 * quality.std()
    assert ((chance > 0.5) == (quality >= threshold))[clear].all()


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_dropped_masks_inform(share: float) -> None:
    """With a share of the failures dropped, chances are better than without them, and hardly worse than with all."""
    told, untold, everything = [], [], []
    for seed in range(6):
        landscape = additive(seed)
        kept, others = masks(seed, 120), masks(seed + 50, 300)
        quality, truth = landscape.quality(kept), landscape.quality(others)
        threshold = float(np.quantile(quality, 0.6))
        dropped = (quality < threshold) & (np.random.default_rng(seed).random(len(kept)) < share)
        cases = (kept, np.where(dropped, -np.inf, quality)), (kept[~dropped], quality[~dropped]), (kept, quality)
        for errors, case in zip((told, untold, everything), cases, strict=True):
            chance = np.exp(Surrogate(*case, threshold, EVEN).log_chance(others))
            errors.append(np.mean((chance - (truth >= threshold)) ** 2))
    assert np.mean(told) < np.mean(untold)
    assert np.mean(told) < np.mean(everything) + 0.02


def test_all_failures_dropped_or_all_alike_is_bearable() -> None:
    kept = masks(0, 20)
    for quality in (np.where(kept.all(axis=1), 1.0, -np.inf), np.zeros(len(kept))):
        kept[0], quality[0] = True, 0.0
        assert np.isfinite(Surrogate(kept, quality, -1e-9, EVEN).log_chance(masks(1, 50))).all()


def test_a_batch_does_not_test_the_same_guess() -> None:
    def spread(rows: np.ndarray) -> float:
        return float((rows[:, None] != rows).sum(axis=2).mean())

    chosen, ranked = [], []
    for seed in range(5):
        landscape = pairs(seed)
        kept, others = masks(seed, 30), masks(seed + 50, 400)
        quality = landscape.quality(kept)
        model = Surrogate(kept, quality, float(np.max(quality)) + float(np.std(quality)) / 2, EVEN)
        rows = model.choose(others, np.zeros((12, len(others))))
        best = np.argsort(-model.log_chance(others), kind="stable")[:12]
        assert len(set(rows)) == 12 and rows[0] == best[0]
        chosen.append(spread(others[rows]))
        ranked.append(spread(others[best]))
    assert np.mean(chosen) > np.mean(ranked) + 0.3, (chosen, ranked)


def test_a_bonus_tips_the_scales() -> None:
    landscape = additive(0)
    kept, others = masks(0, 40), masks(1, 100)
    model = Surrogate(kept, landscape.quality(kept), float(np.median(landscape.quality(kept))), EVEN)
    bonus = np.zeros((2, len(others)))
    bonus[1, 17] = 1000
    assert model.choose(others, bonus)[1] == 17


def test_good_advice_on_what_units_are_worth_is_taken_and_bad_advice_is_not() -> None:
    landscape = additive(4, 30)
    everything = landscape.quality(np.eye(30, dtype=bool)) - landscape.quality(np.zeros((1, 30), dtype=bool))
    kept, others = masks(0, 25, 30), masks(1, 300, 30)
    quality, truth = landscape.quality(kept), landscape.quality(others)
    even, right = np.full(30, 1 / 30), everything / everything.sum()

    def error(*worth: np.ndarray) -> float:
        mean, _, _ = Surrogate(kept, quality, 0.0, np.array(worth))._predict(others.astype(float))
        return float(np.mean((mean - truth) ** 2))

    assert error(even, right) < 0.7 * error(even)
    assert error(even, right[::-1]) < 1.2 * error(even)
