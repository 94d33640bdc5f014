"""Searches for a draft mask on objectives with a known optimum; what the published methods keep fixed stays fixed."""

from collections.abc import Sequence as Seq

import numpy as np
import pytest

from oracle.draft.adaptive import knapspec_choice, knapspec_weights, tokens_per_time
from oracle.draft.searches import bayesian, sublayers_of, swift
from oracle.types import Allocation

UNITS = 12


def toward(target: Allocation):
    """Closer to a target mask is better; counts what is asked for."""
    asked: list[Allocation] = []

    def objective(masks: Seq[Allocation]) -> list[float]:
        asked.extend(masks)
        return [-len(set(mask) ^ set(target)) for mask in masks]

    return objective, asked


@pytest.mark.parametrize("seed", range(3))
def test_the_process_finds_an_additive_optimum(seed: int) -> None:
    target = (0, 1, 4, 6, 9, 11)
    objective, asked = toward(target)
    starts = [tuple(range(10)), tuple(range(2, 12)), tuple(range(0, 12, 2))]
    values = bayesian(objective, starts, units=UNITS, evaluations=60, seed=seed, known=len(starts))
    assert max(values, key=values.__getitem__) == target
    assert len(asked) == len(set(asked)) == len(values) <= 63
    assert tuple(range(UNITS)) not in values and () not in values


def test_no_more_is_evaluated_than_asked_for() -> None:
    objective, asked = toward((0, 1))
    assert len(bayesian(objective, [(0, 1, 2), (3, 4)], units=UNITS, evaluations=2, seed=0)) == len(asked) == 2
    # Two units have two masks that skip something and not everything.
    assert set(bayesian(toward((0,))[0], [(0,)], units=2, evaluations=9, seed=0)) == {(0,), (1,)}


def test_swift_skips_its_share_of_inner_sublayers() -> None:
    layers, asked = 10, []

    def objective(masks: Seq[Allocation]) -> list[float]:
        asked.extend(masks)
        return [0.5 * (5 in mask) + 0.01 * (7 in mask) for mask in masks]

    best = swift(objective, layers=layers, evaluations=60, seed=0)
    assert {2 * layers - len(mask) for mask in asked} == {int(16 * 0.45)}
    assert all({0, 1, 18, 19} <= set(mask) for mask in asked)
    assert {5, 7} <= set(best) and len(asked) <= 60


def test_swift_stops_when_the_agreement_is_high() -> None:
    asked: list[Allocation] = []

    def objective(masks: Seq[Allocation]) -> list[float]:
        asked.extend(masks)
        return [0.96] * len(masks)

    first = swift(objective, layers=10, evaluations=200, seed=0)
    assert len(asked) <= 25 and first == asked[0]


def test_swift_begins_with_every_second_layer() -> None:
    assert swift(lambda masks: [0.0] * len(masks), layers=6, evaluations=10, seed=0) == sublayers_of((0, 2, 4, 5))
    whole = swift(lambda masks: [float(len(masks) > 0)] * len(masks), layers=10, evaluations=5, seed=0, separable=False)
    assert whole == sublayers_of([unit // 2 for unit in whole[::2]]) and len(whole) == 2 * (10 - int(8 * 0.45))


def test_knapspec_weighs_by_rounded_latency_ratios() -> None:
    assert knapspec_weights(1.0, 1.4) == [1, 1]
    assert knapspec_weights(1.0, 2.6) == [1, 3]
    assert knapspec_weights(9.0, 1.0) == [5, 1]


def test_knapspec_takes_the_most_tokens_per_time() -> None:
    layers, ms = 4, (2.0, 3.0)
    masks = [(0, 1, 2, 3, 4, 6, 7), (0, 1, 6, 7), (0, 1, 3, 5, 6, 7)]
    alphas = [1.0, 0.25, 0.75]

    def formula(place: int, d: int) -> float:
        """The released code's TPT."""
        a, mask = alphas[place], masks[place]
        generated = d + 1 if a == 1.0 else (a ** (d + 1) - 1) / (a - 1)
        attn, mlp = sum(u % 2 == 0 for u in mask), sum(u % 2 for u in mask)
        return generated / (ms[0] * (attn * d + layers) + ms[1] * (mlp * d + layers))

    for place, mask in enumerate(masks):
        for d in range(6):
            assert tokens_per_time(alphas[place], mask, layers, ms, d) == pytest.approx(formula(place, d))
    best = max(((p, d) for p in range(3) for d in range(6)), key=lambda one: formula(*one))
    assert knapspec_choice(alphas, masks, layers, ms, 5) == best
    assert np.isfinite(formula(*best))
