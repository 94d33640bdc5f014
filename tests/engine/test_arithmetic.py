"""Outputs under arithmetic that rounds by row and shape: those of plain generation, and every search verifies."""

import pytest
import torch
from arithmetic import Hostile
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from zoo import MORE, ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.models import LanguageModel

MASKS = [(), (2,), (0, 4), (1, 2, 3), tuple(range(LAYERS))]
TEXTS = ("A longer prompt, wider than a window.", "xy")


@pytest.mark.parametrize("ulp", [2, 16])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", [*ZOO, *MORE])
def test_outputs_are_those_of_plain_generation(family, dtype, ulp) -> None:
    with Hostile(ulp):
        model = LanguageModel(name=family, network=tiny(family).to(dtype), tokenizer=tiny_tokenizer())
        for scope in ("decode", "decode-last", "sequence"):
            engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=6))
            prompts = [engine.open(text) for text in TEXTS]
            requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
            for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
                assert generation.tokens == engine.alone(*request), (scope, request[1])


@pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
def test_near_ties_are_settled_as_plain_generation_settles_them(scope) -> None:
    """Every token a near-tie: settling alone keeps to the very bits of plain generation."""
    with Hostile(16):
        model = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())
        engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=6, near_tie=1e9))
        prompt = engine.open(TEXTS[0])
        results = engine.generate([(prompt, mask) for mask in MASKS])
        assert all(rerun for _, rerun in results)
        assert not engine.notes, "alone is plain, bit for bit, so that nothing had to be generated again"
        assert [found.tokens for found, _ in results] == [engine.alone(prompt, mask) for mask in MASKS]


def test_where_alone_is_not_plain_bit_for_bit_plain_generation_settles(monkeypatch, tiny_model) -> None:
    monkeypatch.setattr("oracle.engine.tie_break.same_as_plain", lambda *args, **settings: False)
    monkeypatch.setattr("oracle.engine.tie_break.run_alone", None)
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=6, near_tie=1e9))
    prompt = engine.open(TEXTS[0])
    results = engine.generate([(prompt, mask) for mask in MASKS])
    assert [found.tokens for found, _ in results] == [engine.alone(prompt, mask) for mask in MASKS]
    assert [note["event"] for note in engine.notes] == ["near-ties are settled by plain generation"]


@pytest.mark.parametrize("ulp", [2, 16])
@pytest.mark.parametrize("criterion", ["rougeL", "agreement"])
def test_every_reported_allocation_of_a_search_is_verified(search, criterion, ulp) -> None:
    with Hostile(ulp):
        run = search(criterion=criterion, strategy="auto")
    summary = run.summary()
    assert summary["verified"] == summary["verified_of"] >= 6
    assert summary["differences"] == []
    assert run.manifest["rounding"]["near_tie"] == 8 * run.manifest["rounding"]["logits"]
