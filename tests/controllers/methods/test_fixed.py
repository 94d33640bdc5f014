"""Controllers without training: which layers they choose."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import LAYERS

from oracle.allocations import published_unified, skip_decode
from oracle.controllers.methods.fixed import DepthDecay, RandomMask, SkipDecode, Unified, decayed
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import TableGate
from oracle.errors import InputError


@pytest.mark.parametrize(
    ("layers", "speedup", "kept"),
    [
        (24, 2, (*range(0, 22, 2), 23)),
        (24, 5, (0, 8, 16, 23)),
        (32, 3, (*range(0, 27, 3), 31)),
        (24, 24, (0,)),
        (24, 25, (0, 23)),  # n = 0 in the released code
        (1, 2, (0,)),
        (1, 1, (0,)),
        (30, 1, tuple(range(30))),
    ],
)
def test_unified_skipping_keeps_what_was_published(layers: int, speedup: float, kept: tuple[int, ...]) -> None:
    assert published_unified(layers, speedup) == kept


@given(st.integers(1, 80), st.floats(1, 100))
def test_unified_skipping_takes_every_depth_and_speedup(layers: int, speedup: float) -> None:
    kept = published_unified(layers, speedup)
    assert len(kept) == (int(layers / speedup) or len({0, layers - 1}))
    assert list(kept) == sorted(set(kept))
    assert kept[0] == 0
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


@given(st.integers(1, 80), st.floats(1, 20), st.integers(1, 60))
def test_skipdecode_falls_with_the_position_and_needs_no_missing_state(
    layers: int, speedup: float, tokens: int
) -> None:
    allocations = skip_decode(layers, speedup, tokens)
    assert len(allocations) == tokens
    for allocation, following in pairwise([*allocations, ()]):
        assert allocation[0] == 0, "the warm-up layer"
        assert allocation[1:] == tuple(range(layers - len(allocation) + 1, layers)), "and the uppermost"
        assert set(following) <= set(allocation)


def test_skipdecode_at_twice_the_speed_of_32_layers() -> None:
    """16 layers on average; the budget falls linearly from 4/3 to 2/3 of that."""
    found = [len(one) for one in skip_decode(32, 2, 33)]
    assert found == [round(64 / 3 - place / 32 * 32 / 3) for place in range(33)]
    assert np.mean(found) == pytest.approx(16, abs=0.1)
    assert skip_decode(32, 1, 5) == [tuple(range(32))] * 5
    assert skip_decode(32, 2, 33)[0] == (0, *range(12, 32))


def test_skipdecode_runs_what_its_table_says(context: RunContext) -> None:
    controller = SkipDecode(context.engine, speedup=1.5)
    prompts = [example.prompt for example in context.examples.values()]
    expected = skip_decode(LAYERS, 1.5, context.engine.config.max_new_tokens - 1)
    for one in context.engine.generate_gated([prompt.state for prompt in prompts], controller.gate(prompts)):
        assert [tuple(np.flatnonzero(row)) for row in one.ran_TL] == expected[: len(one.ran_TL)]


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
        ("influence", {"layers": 1, "last": "first"}, "must be one of raw, normed, not 'first'"),
        ("d3", {"alpha": 0.0}, "a decay above 0"),
        ("confidence", {"measure": "margin", "threshold": 1.0}, "must be one of gap, top, not 'margin'"),
        ("confidence", {"measure": "entropy", "threshold": 1.0}, "choose the controller 'entropy'"),
        ("confidence", {"threshold": 1.0, "decay": -1.0}, "a finite decay of at least 0"),
        ("confidence", {"measure": "gap", "threshold": 1.0, "stride": 0}, "a stride of at least 1"),
        ("adainfer", {"threshold": 1.0}, "a threshold between 0 and 1"),
        ("adainfer", {}, "a threshold between 0 and 1"),
        ("adainfer", {"classifier": "svm", "threshold": 0.5}, "'svm' has no threshold"),
        ("adainfer", {"classifier": "tree"}, "must be one of svm, regression, not 'tree'"),
        ("ridge", {"price": -1.0}, "a price of at least 0"),
        ("gate-hidden", {"alpha": 1.0, "shape": "round"}, "must be one of linear, mlp"),
        ("gate-hidden", {"alpha": 1.0, "decision": "coin"}, "must be one of sample, argmax, not 'coin'"),
        ("gate-hidden", {"alpha": -1.0}, "a finite weight alpha of at least 0"),
    ],
)
def test_wrong_settings_are_refused(context: RunContext, name: str, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(name, context, settings)
