"""Cases in which a batch, a gate or a hint once went wrong."""

from collections.abc import Sequence as Seq
from itertools import combinations

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from zoo import GATED, ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine, TableGate
from oracle.engine.layer_importance import HiddenStates
from oracle.errors import InputError
from oracle.models import LanguageModel

LONG = "A longer prompt, wider than a window."
CONTEXT = 128
LEARNED_POSITIONS = ["gpt2", "gptj", "gpt-bigcode", "opt, norm before"]
ALL = np.ones((1, LAYERS), dtype=np.bool_)


def endless(family: str) -> LanguageModel:
    """A model whose outputs have no end, so that every row takes all of its tokens."""
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    object.__setattr__(model, "stop", frozenset())
    return model


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize(("family", "changes"), [("gpt-neo", {}), ("opt, norm after", {"word_embed_proj_dim": 16})])
def test_layers_with_lists_or_widths_of_their_own(family, changes, scope) -> None:
    """GPT-Neo lists its kinds of attention under another name; OPT-350M's embeddings are narrower than its layers."""
    model = LanguageModel(name=family, network=tiny(family, **changes), tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    requests = [(engine.open(text), mask) for text in (LONG, "x") for mask in [(), (0, 3), (1, 2), (0, 1, 2, 3, 4)]]
    found = [generation.tokens for generation, _ in engine.generate(requests)]
    assert found == [engine.alone(*request) for request in requests]


class After:
    """A bound that drops an output once it has a number of tokens."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        return float(len(tokens) < self.tokens)


@pytest.mark.parametrize("family", ["gptj", "bloom", "falcon", "falcon, alibi"])
def test_copied_prompts_stand_right_where_the_longest_skips_a_layer(family) -> None:
    engine = Engine(endless(family), SearchConfig(max_new_tokens=12))
    requests = [(engine.open(LONG), (0,)), (engine.open("x"), (1, 3))]
    found = [generation.tokens for generation, _ in engine.generate(requests)]
    assert found == [engine.alone(*request) for request in requests]


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_rows_that_join_late_see_their_whole_window(family) -> None:
    engine = Engine(endless(family), SearchConfig(max_new_tokens=14, batch_rows=4))
    prompt = engine.open(LONG)
    masks = [mask for count in (1, 2, 3) for mask in combinations(range(LAYERS), count)]
    # Three of the first four finish early; no row finishes after them.
    thresholds = [(After(99 if place == 0 or place > 3 else 8), 0.5) for place in range(len(masks))]
    found = engine.generate([(prompt, mask) for mask in masks], thresholds)
    for mask, (generation, _) in zip(masks, found, strict=True):
        assert generation.dropped or generation.tokens == engine.alone(prompt, mask), mask


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("family", LEARNED_POSITIONS)
def test_rows_that_have_ended_do_not_run_past_the_context(family, scope) -> None:
    engine = Engine(endless(family), SearchConfig(scope=scope, max_new_tokens=12, batch_rows=10))
    full, short = engine.open("x" * (CONTEXT - 12)), engine.open("yyyyy")
    requests = [(full, (0,))] + [(full, (i % LAYERS,)) for i in range(9)] + [(short, (1, 2 + i % 2)) for i in range(9)]
    thresholds = [(After(6 if 0 < place < 10 else 99), 0.5) for place in range(len(requests))]
    found = engine.generate(requests, thresholds)
    for request, (generation, _) in zip(requests, found, strict=True):
        assert generation.dropped or generation.tokens == engine.alone(*request)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("family", LEARNED_POSITIONS)
def test_padding_behind_a_short_continuation_stays_in_the_context(family, scope) -> None:
    engine = Engine(endless(family), SearchConfig(scope=scope, max_new_tokens=12))
    prompts = [engine.open("x" * 110), engine.open("yyyyy")]
    gate = TableGate([ALL, ALL], policy="propagate")
    short, _ = engine.score_gated(prompts, gate, [[1, 2, 3], list(range(60))])
    [expected] = engine.log_likelihoods(prompts[0], [tuple(range(LAYERS))], [1, 2, 3])
    assert short.log_likelihoods_T.mean() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_one_token_can_be_checked_alone(tiny_model, scope) -> None:
    engine = Engine(tiny_model, SearchConfig(scope=scope, max_new_tokens=1))
    prompt = engine.open("x")
    [(generation, _)] = engine.generate([(prompt, (0, 2))])
    assert generation.tokens == engine.alone(prompt, (0, 2))


@pytest.mark.parametrize("family", ["phi", "gpt-neox", "falcon"])
def test_parallel_blocks_have_no_state_between_attention_and_mlp(family) -> None:
    engine = Engine(endless(family), SearchConfig(max_new_tokens=8, unit="sublayer"))
    with pytest.raises(InputError, match="side by side: use the unit 'layer'"):
        HiddenStates(engine, engine.open("Hello there."), [1, 2, 3])


@torch.inference_mode()
def test_hidden_states_of_sublayers_end_where_the_full_model_does() -> None:
    model = endless("llama")
    engine = Engine(model, SearchConfig(max_new_tokens=8, unit="sublayer"))
    prompt = engine.open("Hello there.")
    tokens = engine.alone(prompt, tuple(range(2 * LAYERS)))
    states = HiddenStates(engine, prompt, tokens)
    ids = torch.cat([prompt.tokens, torch.tensor(tokens[:-1])])[None]
    logits = model.decoder.finish(states._full_UTD[-1][None])[0]
    torch.testing.assert_close(logits, model.network(ids).logits[0, prompt.length :], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_a_long_prompt_beside_a_short_one_does_not_change_its_positions(monkeypatch, scope) -> None:
    """Phi-3's positions are scaled by the longest row of a batch, once it is longer than the model was trained for."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    settings = {
        **GATED,
        "original_max_position_embeddings": 24,
        "rope_parameters": {**rope, "original_max_position_embeddings": 24},
    }
    monkeypatch.setitem(ZOO, "longrope", ("Phi3", settings))
    engine = Engine(endless("longrope"), SearchConfig(scope=scope, max_new_tokens=8))
    short, long = engine.open("Hello there."), engine.open(LONG)
    masks = [(0, 1), (1, 2, 3), (0, 4)]
    found = engine.generate([(prompt, mask) for mask in masks for prompt in (short, long)])[::2]
    assert [generation.tokens for generation, _ in found] == [engine.alone(short, mask) for mask in masks]


def test_biases_of_heads_are_not_taken_for_rows(monkeypatch) -> None:
    monkeypatch.setitem(ZOO, "mpt", ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": 128}))
    with pytest.raises(InputError, match="MptForCausalLM passes its layers a per-head tensor"):
        Engine(endless("mpt"), SearchConfig(max_new_tokens=8))


def test_nothing_to_do_is_no_error(tiny_model) -> None:
    engine, gate = Engine(tiny_model, SearchConfig(max_new_tokens=4)), TableGate([], policy="copy")
    assert engine.generate([]) == []
    assert engine.log_likelihoods(engine.open("x"), [], [1]) == []
    assert engine.generate_gated([], gate) == []
    assert engine.score_gated([], gate, []) == []
