"""The longest input is what a model's positions allow, and what came before leaves no trace."""

from typing import Any

import pytest
import torch
import transformers as hf
from tiny import tiny_llama, tiny_tokenizer
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.models.context import context_length
from oracle.models.introspection import Positions

BASE = {"rope_theta": 10_000.0}
ORIGINAL = "original_max_position_embeddings"


def scaled(kind: str, factor: float | None = 4.0, **more: Any) -> dict[str, Any]:
    return {**BASE, "rope_type": kind, **({} if factor is None else {"factor": factor}), **more}


LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}

ROTARY: dict[str, tuple[dict[str, Any], int, int | None]] = {
    "plain": (scaled("default", None), 64, 64),
    "linear": (scaled("linear"), 64, 256),
    "dynamic": (scaled("dynamic"), 64, 256),
    "dynamic, by half": (scaled("dynamic", 1.5), 64, 96),
    "yarn, original length declared": (scaled("yarn", **{ORIGINAL: 64}), 64, 256),
    "yarn, whole length declared": (scaled("yarn", **{ORIGINAL: 64}), 256, 256),
    "yarn, a little more declared": (scaled("yarn", **{ORIGINAL: 64}), 80, 256),
    "yarn, nothing but the factor": (scaled("yarn"), 64, 256),
    "llama 3, whole length declared": (scaled("llama3", 8.0, **LLAMA3, **{ORIGINAL: 64}), 256, 256),
    "llama 3, original length declared": (scaled("llama3", 8.0, **LLAMA3, **{ORIGINAL: 64}), 64, 512),
    "longrope": (scaled("longrope", None, **LONG, **{ORIGINAL: 64}), 256, 256),
}


@pytest.mark.parametrize("case", ROTARY)
def test_rotary_scaling_reaches_as_far_as_it_says(case: str) -> None:
    rope, declared, reach = ROTARY[case]
    assert context_length(tiny_llama(max_position_embeddings=declared, rope_parameters=rope)) == reach


WINDOWS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "all layers see a window": ("mistral", {"sliding_window": 8}, None),
    "no window": ("mistral", {"sliding_window": None}, 128),
    "a window longer than the input": ("mistral", {"sliding_window": 4096}, 128),
    "some layers see all": ("gemma2", {}, 128),
    "scaling per kind of layer": ("gemma3", {}, 128),
    "a window that is switched off": ("qwen2", {"sliding_window": 8, "use_sliding_window": False}, 128),
    "a table of positions": ("gpt2", {}, 128),
    "a table with an offset": ("opt, norm before", {}, 128),
    "a table of sines": ("gptj", {}, 128),
    "biases by distance": ("bloom", {}, None),
    "biases by distance, a length declared": ("falcon, alibi", {}, None),
    "rotary, the same family": ("falcon", {}, 128),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_and_biases_have_no_limit_and_tables_have(case: str) -> None:
    family, changes, length = WINDOWS[case]
    network = tiny(family, **changes)
    assert context_length(network) == length
    assert Positions.of(network).last == (None if length is None else length - 1)


def test_mpt_computes_its_biases_for_the_declared_length_only() -> None:
    config = hf.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=64, max_seq_len=48)
    assert context_length(hf.MptForCausalLM(config)) == 48


@pytest.mark.parametrize("kind", ["dynamic", "yarn", "linear"])
@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_outputs_beyond_the_declared_length_are_those_of_plain_generation(kind: str, scope: str) -> None:
    network = tiny_llama(max_position_embeddings=32, rope_parameters=scaled(kind))
    model = LanguageModel(name=kind, network=network, tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    texts = ("x" * 100, "short", "a text of middling length, more than declared")
    alone = {}
    for order in (texts, texts[::-1]):
        prompts = [engine.open(text) for text in order]
        requests = [(prompt, mask) for prompt in prompts for mask in [(0, 1, 2, 3, 4), (0, 2, 4), (1, 3)]]
        for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
            assert generation.tokens == engine.alone(*request)
            key = len(request[0].tokens), request[1]
            assert alone.setdefault(key, generation.tokens) == generation.tokens, "what ran before changed it"
    with pytest.raises(InputError, match=r"model's context of 128 tokens"):
        engine.open("x" * 121)


def test_frequencies_are_those_of_the_pass_and_not_of_a_longer_one_before() -> None:
    network = tiny_llama(max_position_embeddings=32, rope_parameters=scaled("dynamic"))
    model = LanguageModel(name="dynamic", network=network, tokenizer=tiny_tokenizer())
    assert model.decoder.positions.one_pass == 32 and not model.decoder.positions.mix
    short, long = (torch.arange(2, length)[None] for length in (50, 100))
    with torch.inference_mode():
        before = network(short).logits
        assert not torch.equal(network(long).logits[:, :48], before), "longer inputs turn all tokens otherwise"
        assert torch.equal(network(short).logits, before)


@pytest.mark.parametrize("kind", ["dynamic", "plain"])
def test_reproduction_beyond_the_declared_length_is_what_generation_says(kind: str) -> None:
    rope = scaled("dynamic") if kind == "dynamic" else scaled("default", None)
    network = tiny_llama(max_position_embeddings=32 if kind == "dynamic" else 256, rope_parameters=rope)
    model = LanguageModel(name=kind, network=network, tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(scope="decode", max_new_tokens=6))
    prompt = engine.open("forty tokens of text, give or take a few")
    runs = torch.tensor([[bool(number >> layer & 1) for layer in range(5)] for number in range(32)]).numpy()
    masks = [tuple(row.nonzero()[0].tolist()) for row in runs]
    outputs = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
    for wanted in sorted(set(outputs), key=outputs.count)[-2:]:
        found = [answer for _, answers in engine.reproduces(prompt, runs, wanted) for answer in answers]
        assert found == [output == wanted for output in outputs]


def test_every_family_of_the_zoo_has_the_context_that_it_declares() -> None:
    unlimited = {"mistral", "bloom", "falcon, alibi"}
    for family in ZOO:
        length = context_length(tiny(family))
        assert (length is None) == (family in unlimited), family
        assert length in (None, 128, 2048, 4096, 131072), family
