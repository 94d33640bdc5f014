"""Per-token gates: what they let run is run, what they skip is settled by the policy, in batches as alone."""

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from transformers.cache_utils import Cache
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine, Fed, Gate, TableGate
from oracle.models import LanguageModel

PROMPTS = ("Hello there.", "A longer prompt, wider than a window.", "x")
POLICIES = ("propagate", "copy", "omit")
NEW = 8
PLAIN_CACHE = ["llama", "qwen2", "gpt2", "gpt-neox", "opt, norm after", "phi"]
"""Families whose attention takes keys of any number without a mask when one token is fed."""


@pytest.fixture(scope="module", params=ZOO)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel(name=request.param, network=tiny(request.param), tokenizer=tiny_tokenizer())


def tables(seed: int, share: float = 0.6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((NEW, LAYERS)) < share for _ in PROMPTS]


class Reference(Cache):
    """One row, one token at a time: the states of a layer are a list, and what is omitted is not in it."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states = {layer: [] for layer in range(LAYERS)}
        self.seen = 0

    def update(self, keys, values, layer_idx, *args, **kwargs):
        self.states[layer_idx].append((keys, values))
        return tuple(torch.cat(parts, dim=2) for parts in zip(*self.states[layer_idx], strict=True))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * LAYERS


@torch.inference_mode()
def by_hand(model: LanguageModel, prompt: torch.Tensor, table: np.ndarray, policy: str, scope: str) -> list[int]:
    """Greedy tokens of the library's model, its layers wrapped, token after token."""
    network, cache = model.network, Reference()
    layers = model.decoder._layers
    decisions = np.ones(LAYERS, dtype=bool)
    lower: list[tuple[torch.Tensor, torch.Tensor]] = []

    def wrapped(index, forward):
        def run(hidden, *args, **kwargs):
            before = len(cache.states[index])
            if decisions[index] or policy == "propagate":
                output = forward(hidden, *args, **kwargs)
                lower[:] = cache.states[index][before:]
                return output if decisions[index] else (hidden, *output[1:]) if isinstance(output, tuple) else hidden
            if policy == "copy":
                cache.states[index] += lower
            return (hidden,) if returns_tuple else hidden

        return run

    returns_tuple = model.decoder._stubs[0].returns_tuple
    for index, layer in enumerate(layers):
        layer.forward = wrapped(index, layer.forward)
    try:
        tokens, given = [], prompt.tolist()
        for place in range(len(given) + NEW - 1):
            generated = place - len(given)
            full = generated < 0 and scope == "decode"
            decisions[:] = True if full else table[max(generated, 0)] if generated >= 0 else READING
            lower.clear()
            token = given[place] if generated < 0 else tokens[-1]
            logits = network(
                input_ids=torch.tensor([[token]]),
                cache=cache,
                position_ids=torch.tensor([[place]]),
                use_cache=True,
            ).logits[0, -1]
            cache.seen += 1
            if generated >= -1:
                tokens.append(int(logits.argmax()))
        return tokens
    finally:
        for layer in layers:
            del layer.forward


READING = np.array([True, False, True, True, False])
"""Layers that prompt tokens run in scope `sequence`."""


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", PLAIN_CACHE)
def test_outputs_are_those_of_the_wrapped_model_token_by_token(family, policy, scope) -> None:
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    object.__setattr__(model, "stop", frozenset())
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=NEW))
    prompts = [engine.open(text) for text in PROMPTS]
    decided = tables(5)
    engine.tie = -1.0
    found = engine.generate_gated(prompts, TableGate(decided, policy=policy, prompt=READING))
    for prompt, table, result in zip(prompts, decided, found, strict=True):
        assert list(result.generation.tokens) == by_hand(model, prompt.tokens, table, policy, scope)
        assert (result.ran_TL[-NEW + 1 :] == table[: NEW - 1]).all()
        assert len(result.ran_TL) == NEW - 1 + (0 if scope == "decode" else prompt.length)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("policy", POLICIES)
def test_teacher_forcing_agrees_with_decoding_in_every_family(model, policy, scope) -> None:
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=NEW))
    prompts = [engine.open(text) for text in PROMPTS]
    gate = TableGate(tables(6), policy=policy, prompt=READING)
    found = engine.generate_gated(prompts, gate)
    scores = engine.score_gated(prompts, gate, [result.generation.tokens for result in found])
    for result, score in zip(found, scores, strict=True):
        assert tuple(score.best_T) == result.generation.tokens
        assert (score.ran_TL == result.ran_TL).all()
        assert (score.log_likelihoods_T <= 0).all()


@pytest.mark.parametrize("policy", ["omit", "propagate"])
def test_a_gate_that_never_changes_is_a_skip_mask(model, policy) -> None:
    """Under neither policy is what a layer stores of tokens that skip it ever read."""
    engine = Engine(model, SearchConfig(max_new_tokens=NEW))
    masks = [(0, 2, 3), (1, 4), ()]
    prompts = [engine.open(text) for text in PROMPTS]
    decided = [np.isin(np.arange(LAYERS), mask)[None] for mask in masks]
    found = engine.generate_gated(prompts, TableGate(decided, policy=policy))
    assert [result.generation.tokens for result in found] == [
        engine.alone(prompt, mask) for prompt, mask in zip(prompts, masks, strict=True)
    ]


def test_the_policies_differ(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=NEW))
    prompts = [engine.open(text) for text in PROMPTS]
    outputs = {p: engine.generate_gated(prompts, TableGate(tables(7, 0.5), policy=p)) for p in POLICIES}
    assert len({tuple(r.generation.tokens for r in results) for results in outputs.values()}) == 3


class Sign(Gate):
    """Runs a layer if one feature of the hidden state is positive: a decision that needs the state itself."""

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def runs(self, layer: int, hidden_RTD: torch.Tensor, fed: Fed) -> torch.Tensor:
        assert hidden_RTD.shape[0] == len(fed.requests) == len(fed.skipped_R)
        return hidden_RTD[:, :, layer] > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_gates_that_look_at_the_state_do_not_depend_on_the_batch(tiny_model, policy) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=NEW))
    prompts = [engine.open(text) for text in PROMPTS] * 2
    together = engine.generate_gated(prompts, Sign(policy))
    for prompt, result in zip(prompts, together, strict=True):
        [alone] = engine.generate_gated([prompt], Sign(policy))
        assert alone.generation.tokens == result.generation.tokens
        assert (alone.ran_TL == result.ran_TL).all()
    share = np.mean(np.concatenate([result.ran_TL for result in together]))
    assert 0.1 < share < 0.9
