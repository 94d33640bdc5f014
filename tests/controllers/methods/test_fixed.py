"""Controllers without training: which layers they choose."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import LAYERS

from oracle.controllers.methods.confidence import Exits, features
from oracle.controllers.methods.fixed import DepthDecay, RandomMask, Unified, decayed, published_unified
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Fed, TableGate
from oracle.errors import InputError


@pytest.mark.parametrize(
    ("layers", "speedup", "kept"),
    [
        (24, 2, (*range(0, 22, 2), 23)),
        (24, 5, (0, 8, 16, 23)),
        (32, 3, (*range(0, 27, 3), 31)),
        (24, 24, (0,)),
        (24, 25, ()),
        (1, 1, (0,)),
        (30, 1, tuple(range(30))),
    ],
)
def test_unified_skipping_keeps_what_was_published(layers: int, speedup: float, kept: tuple[int, ...]) -> None:
    assert published_unified(layers, speedup) == kept


@given(st.integers(1, 80), st.floats(1, 100))
def test_unified_skipping_takes_every_depth_and_speedup(layers: int, speedup: float) -> None:
    kept = published_unified(layers, speedup)
    assert len(kept) == int(layers / speedup)
    assert list(kept) == sorted(set(kept))
    assert not kept or kept[0] == 0
    assert len(kept) < 2 or kept[-1] == layers - 1


@pytest.mark.parametrize("speedup", [0.5, 0, -1, float("nan"), float("inf")])
def test_a_speedup_below_one_is_refused(speedup: float) -> None:
    with pytest.raises(InputError, match="a speed-up of at least 1"):
        published_unified(24, speedup)


def test_unified_skipping_is_the_same_under_its_cache_policy(context: RunContext) -> None:
    """Skipped layers take the states of the nearest lower one; tokens that skip them never read these."""
    controller = Unified(context.engine, speedup=LAYERS / 3)
    runs_1L = np.isin(np.arange(LAYERS), controller.kept)[None]
    prompts = [example.prompt for example in context.examples.values()]
    copied = context.engine.generate_gated(
        [prompt.state for prompt in prompts], TableGate([runs_1L] * len(prompts), policy="copy")
    )
    assert [one.generation.tokens for one in copied] == [one.tokens for one in controller.generate(prompts)]


@given(st.integers(1, 60), st.integers(0, 60))
def test_depth_decay_leaves_out_the_middle(layers: int, budget: int) -> None:
    kept = decayed(layers, budget)
    assert len(kept) == min(layers, max(budget, 2))
    assert list(kept) == sorted(set(kept))
    assert kept[0] == 0 and kept[-1] == layers - 1
    assert sum(b - a > 1 for a, b in pairwise(kept)) <= 1, "one gap at most"


def test_depth_decay_follows_the_published_formula(context: RunContext) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    [first, *_] = context.engine.generate_gated(
        [prompt.state for prompt in prompts], DepthDecay(context.engine, alpha=0.8).gate(prompts)
    )
    expected = [max(2, int(LAYERS * 0.8 ** (place + 1))) for place in range(len(first.ran_TL))]
    assert first.ran_TL.sum(1).tolist() == expected


def test_random_masks_belong_to_their_prompts(context: RunContext) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    masks = RandomMask(context.engine, layers=2).allocations(prompts)
    assert masks == RandomMask(context.engine, layers=2).allocations(prompts[::-1])[::-1]
    assert len(set(masks)) > 1
    assert {len(mask) for mask in masks} == {2}
    assert masks != RandomMask(context.engine, layers=2, seed=1).allocations(prompts)


def test_clasp_at_full_budget_is_the_full_model(context: RunContext) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    assert make("clasp", context, {"layers": LAYERS}).allocations(prompts) == [tuple(range(LAYERS))] * len(prompts)
    masks = make("clasp", context, {"layers": 3}).allocations(prompts)
    assert {len(mask) for mask in masks} == {3}


def test_block_influence_drops_the_least_influential(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("influence", context, {"layers": 3})
    controller.fit(training_set)
    worth = np.array(training_set.quality_table.influence(training_set.examples))
    [kept] = set(controller.allocations([context.examples["s5"].prompt]))
    dropped = sorted(set(range(LAYERS)) - set(kept))
    assert len(kept) == 3
    assert worth[list(kept)].min() >= worth[dropped].max()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("random", {"layers": 9}, "a budget of 0 to 5 layers"),
        ("influence", {"layers": -1}, "a budget of 0 to 5 layers"),
        ("d3", {"alpha": 0.0}, "a decay above 0"),
        ("confidence", {"measure": "margin", "threshold": 1.0}, "must be gap or entropy, not 'margin'"),
        ("confidence", {"measure": "gap", "threshold": 1.0, "stride": 0}, "a stride of at least 1"),
        ("adainfer", {"threshold": 1.0}, "a threshold between 0 and 1"),
        ("ridge", {"price": -1.0}, "a price of at least 0"),
        ("gate-hidden", {"alpha": 1.0, "shape": "round"}, "must be one of linear, mlp"),
        ("gate-hidden", {"alpha": -1.0}, "a finite weight alpha of at least 0"),
    ],
)
def test_wrong_settings_are_refused(context: RunContext, name: str, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(name, context, settings)


def test_who_leaves_does_not_come_back(context: RunContext) -> None:
    import torch

    decoder, asked = context.engine.model.decoder, []

    def leaves(features_EF: torch.Tensor) -> torch.Tensor:
        asked.append(len(features_EF))
        return torch.tensor([True] + [False] * (len(features_EF) - 1))

    gate, fed = Exits(decoder, (2, 4), leaves), Fed(requests=(0, 1, 2), start=0, skipped_R=(0, 0, 0))
    hidden_RTD = torch.randn(3, 1, 32)
    stays = [gate.runs(layer, hidden_RTD, fed)[:, 0].tolist() for layer in range(LAYERS)]
    assert stays == [[True] * 3] * 2 + [[False, True, True]] * 2 + [[False, False, True]]
    assert asked == [3, 2], "tokens that have exited are not asked again"
    reading = Fed(requests=(0, 1, 2), start=-1, skipped_R=(0, 0, 0))
    assert all(bool(gate.runs(layer, hidden_RTD, reading).all()) for layer in range(LAYERS)), "prompts stay"


def test_features_of_a_distribution() -> None:
    import torch

    gap, top, entropy = features(torch.tensor([[0.5, 0.25, 0.25]]).log())[0].tolist()
    assert (gap, top) == (pytest.approx(0.25), pytest.approx(0.5))
    assert entropy == pytest.approx(1.5 * np.log(2))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_confidence_at_its_ends(context: RunContext, threshold: float) -> None:
    """A gap of 0 is always reached, one above 1 never."""
    controller = make("confidence", context, {"measure": "gap", "threshold": threshold, "stride": 2})
    outputs = controller.generate([example.prompt for example in context.examples.values()])
    assert {output.cost for output in outputs} == {2.0 if threshold == 0 else float(LAYERS)}
    if threshold:
        assert [output.tokens for output in outputs] == [example.tokens for example in context.examples.values()]
    checks = 1 if threshold == 0 else 2
    assert controller.costs is not None
    ran = controller.costs.of(tuple(range(int(outputs[0].cost))), propagate=True)
    assert outputs[0].flops == pytest.approx(ran + checks * controller.costs.overhead)


def test_without_a_check_on_the_way_no_token_exits(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("adainfer", context, {"threshold": 0.5, "stride": LAYERS})
    controller.fit(training_set)
    outputs = controller.generate([example.prompt for example in training_set.examples])
    assert [output.tokens for output in outputs] == [example.tokens for example in training_set.examples]
