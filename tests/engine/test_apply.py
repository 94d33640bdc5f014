"""`oracle.apply`: the library's own `generate` gives the engine's outputs on a user's own model."""

import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from transformers import DynamicCache, PreTrainedModel
from zoo import tiny

import oracle
from oracle import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel

FAMILIES = ("llama", "gemma3", "gpt2", "gpt-neo", "mixtral", "bloom", "mistral")
MASKS = ((0, 2, 4), (1, 2), (3,), tuple(range(LAYERS)))
PROMPT = "What is the capital of Italy?"


def generate(network: PreTrainedModel, ids: torch.Tensor, **settings: object) -> tuple[int, ...]:
    output = network.generate(
        ids[None], attention_mask=torch.ones_like(ids[None]), do_sample=False, pad_token_id=0, **settings
    )
    return tuple(output[0, len(ids) :].tolist())


def engine_of(family: str, **config: object) -> Engine:
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    return Engine(model, SearchConfig(max_new_tokens=12, chat_template=False, **config))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_generate_gives_the_outcome_of_the_engine(family: str, scope: str) -> None:
    engine = engine_of(family, scope=scope)
    prompt = engine.open(PROMPT)
    full = generate(engine.model.network, prompt.tokens, max_new_tokens=12)
    outcomes = engine.generate([(prompt, mask) for mask in MASKS])
    different = 0
    for mask, (outcome, _) in zip(MASKS, outcomes, strict=True):
        with oracle.apply(engine.model.network, mask, scope=scope) as network:
            assert generate(network, prompt.tokens, max_new_tokens=12) == outcome.tokens
            assert generate(network, prompt.tokens, max_new_tokens=12) == outcome.tokens, "a second call is the same"
        different += outcome.tokens != full
    assert different, "the masks change something"
    assert generate(engine.model.network, prompt.tokens, max_new_tokens=12) == full, "the model is as it was"


def test_layer_paths_and_sublayers() -> None:
    engine = engine_of("llama", scope="sequence")
    prompt = engine.open(PROMPT)
    path = (0, 1, 1, 3, 2, 4)
    [(outcome, _)] = engine.generate([(prompt, path)])
    with oracle.apply(engine.model, path, scope="sequence") as network:
        assert generate(network, prompt.tokens, max_new_tokens=12) == outcome.tokens
    for scope in ("decode", "sequence"):
        engine = engine_of("llama", scope=scope, unit="sublayer")
        prompt, units = engine.open(PROMPT), (0, 1, 3, 4, 8)
        [(outcome, _)] = engine.generate([(prompt, units)])
        with oracle.apply(engine.model, units, scope=scope, unit="sublayer") as network:
            assert generate(network, prompt.tokens, max_new_tokens=12) == outcome.tokens


def test_batches_and_beams_run_the_allocation_too() -> None:
    engine = engine_of("llama")
    network, prompt = engine.model.network, engine.open(PROMPT)
    ids = prompt.tokens[None].repeat(3, 1)
    with oracle.apply(network, (0, 2, 4)):
        rows = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        alone = generate(network, prompt.tokens, max_new_tokens=8)
        beams = network.generate(ids[:1], attention_mask=torch.ones_like(ids[:1]), num_beams=2, max_new_tokens=8)
    assert rows.shape == (3, ids.shape[1] + 8)
    assert tuple(rows[0, ids.shape[1] :].tolist()) == alone
    assert beams.shape[1] > ids.shape[1]


def test_the_model_is_restored_after_an_error() -> None:
    network = engine_of("gemma3").model.network
    before, layers = network.config.to_dict(), list(network.model.layers)
    for scope in ("decode", "sequence"):
        with pytest.raises(ZeroDivisionError), oracle.apply(network, (0, 2), scope=scope):
            network(torch.zeros((1, 3), dtype=torch.long))
            raise ZeroDivisionError
        assert network.config.to_dict() == before
        assert list(network.model.layers) == layers
    assert not network._forward_pre_hooks and not network._forward_hooks


@pytest.mark.parametrize(
    ("allocation", "scope", "message"),
    [
        ((0, 9), "decode", "units 0 to 4"),
        ((2, 1), "decode", "rising subset"),
        ((), "sequence", "at least one layer that attends"),
    ],
)
def test_wrong_allocations_are_refused(allocation: tuple[int, ...], scope: str, message: str) -> None:
    network = engine_of("llama").model.network
    with pytest.raises(InputError, match=message), oracle.apply(network, allocation, scope=scope):
        pass


def test_scope_decode_without_a_cache_is_refused() -> None:
    network = engine_of("llama").model.network
    with oracle.apply(network, (0, 2)), pytest.raises(InputError, match="needs the cache"):
        generate(network, torch.arange(4), max_new_tokens=4, use_cache=False)
    with oracle.apply(network, (0, 2)):
        cache = DynamicCache()
        network(torch.zeros((1, 3), dtype=torch.long), cache=cache)
        assert len(cache.layers) == LAYERS
        network(torch.zeros((1, 1), dtype=torch.long), cache=cache)
        assert [layer.get_seq_length() for layer in cache.layers] == [4, 4]
