"""Model code that drops its cache half-way is found, and outputs that would cross that length are refused."""

from types import MethodType

import pytest
import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from zoo import GATED, ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import Decoder, LanguageModel

FULL = tuple(range(LAYERS))
ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 24,
}


def phi3(monkeypatch: pytest.MonkeyPatch, **changes: object) -> LanguageModel:
    settings = {**GATED, "original_max_position_embeddings": 24, "rope_parameters": ROPE, **changes}
    monkeypatch.setitem(ZOO, "longrope", ("Phi3", settings))
    return LanguageModel(name="longrope", network=tiny("longrope"), tokenizer=tiny_tokenizer())


def library(model: LanguageModel, prompt_T: torch.Tensor, new: int) -> tuple[int, ...]:
    found = model.network.generate(
        prompt_T[None],
        attention_mask=torch.ones_like(prompt_T[None]),
        do_sample=False,
        max_new_tokens=new,
        pad_token_id=0,
    )
    return tuple(found[0, len(prompt_T) :].tolist())


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_case_13_outputs_that_cross_the_length_are_refused_with_the_reason(monkeypatch, scope) -> None:
    model = phi3(monkeypatch)
    assert model.decoder.cache_switch == 24
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    with pytest.raises(
        InputError, match=r"18 tokens and 7 new tokens that are fed cross 24 tokens, where Phi3ForCausalLM"
    ):
        engine.open("x" * 18)
    with pytest.raises(InputError, match="drops its cache"):
        engine.open("x" * 24)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("length", [3, 17, 25, 40])
def test_outputs_on_either_side_are_those_of_generate(monkeypatch, scope, length) -> None:
    """17 + 7 tokens are fed: the last length that fits; from 25 on the long factors hold throughout."""
    model = phi3(monkeypatch)
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    prompt = engine.open("Hello there, how are you today? And so on and so forth."[:length])
    assert prompt.length == length
    [(full, _), (cut, _)] = engine.generate([(prompt, FULL), (prompt, (0, 2, 3))])
    assert full.tokens == library(model, prompt.tokens, 8)
    assert cut.tokens == engine.alone(prompt, (0, 2, 3))


def test_the_library_itself_differs_beyond_the_length(monkeypatch) -> None:
    """The rule is no stricter than it must be: from the first token that crosses, the library computes other logits."""
    model = phi3(monkeypatch)
    ids = torch.tensor([model.tokenizer("Hello there, how are")["input_ids"]])
    settings = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0, "output_logits": True}

    def logits() -> list[torch.Tensor]:
        found = model.network.generate(
            ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True, **settings
        )
        return list(found.logits)

    dropping = logits()
    monkeypatch.setattr(model.network, "prepare_inputs_for_generation", _keeping(model))
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(dropping, logits(), strict=True)]
    assert ids.shape[1] == 20
    assert same == [True] * 5 + [False] * 3  # token 6 is predicted from the 25th fed


def _keeping(model: LanguageModel):
    """The library's own preparation, without the family's: it keeps its cache."""
    from transformers import GenerationMixin

    return MethodType(GenerationMixin.prepare_inputs_for_generation, model.network)


def test_phi3_without_longrope_drops_its_cache_too(monkeypatch) -> None:
    model = phi3(monkeypatch, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    assert model.decoder.cache_switch == 24


def test_a_family_that_keeps_its_cache_is_not_refused() -> None:
    network = tiny_llama(rope_parameters={**ROPE, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4})
    model = LanguageModel(name="tiny", network=network, tokenizer=tiny_tokenizer())
    assert model.decoder.cache_switch is None
    engine = Engine(model, SearchConfig(max_new_tokens=8))
    prompt = engine.open("Hello there, how are y")
    [(generation, _)] = engine.generate([(prompt, FULL)])
    assert generation.tokens == library(model, prompt.tokens, 8)
    assert prompt.length < 24 < prompt.length + 7


def test_code_that_cannot_be_asked_is_not_trusted(monkeypatch) -> None:
    network = tiny_llama(rope_parameters=ROPE)
    decoder = Decoder(network)

    def prepare(input_ids: torch.Tensor, past_key_values: object = None, **rest: object) -> dict[str, object]:
        raise AttributeError("seen_tokens")

    monkeypatch.setattr(network, "prepare_inputs_for_generation", prepare)
    assert decoder.cache_switch == 24


def test_code_of_an_older_signature_is_asked_by_its_own_names(monkeypatch) -> None:
    network = tiny_llama(rope_parameters=ROPE)

    def prepare(input_ids: torch.Tensor, past_key_values: object = None, **rest: object) -> dict[str, object]:
        return {"input_ids": input_ids, "past_key_values": past_key_values}

    monkeypatch.setattr(network, "prepare_inputs_for_generation", prepare)
    assert Decoder(network).cache_switch is None
