"""Products of batches by oneDNN: the library's but for rounding, inside their context only; near-ties are mended."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from torch import nn

from oracle.config import Scope, SearchConfig
from oracle.engine import Engine
from oracle.models import LanguageModel, batch_products
from oracle.models.batch_products import BatchProducts
from oracle.models.rounding import MULTIPLE

MASKS = [(), (2,), (0, 4), (1, 2, 3), tuple(range(LAYERS))]

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this build of torch has no oneDNN",
)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where oneDNN is faster, for layers of any size."""
    monkeypatch.setattr(batch_products, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(batch_products, "_suits", lambda: True)


def layers_of(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 64), nn.SiLU(), nn.Linear(64, 32, bias=False)).to(dtype)


@torch.inference_mode()
def test_the_products_are_the_librarys_but_for_rounding(everywhere: None) -> None:
    layers = layers_of()
    products = BatchProducts.of(layers)
    assert products is not None
    rows = torch.randn(7, 1, 96)
    plain = layers(rows)
    with products.used():
        fast = layers(rows)
    assert torch.allclose(fast, plain, atol=1e-5, rtol=1e-4)
    assert torch.equal(layers(rows), plain)


def test_an_error_leaves_the_layers_as_they_were(everywhere: None) -> None:
    layers = layers_of()
    products = BatchProducts.of(layers)
    assert products is not None
    with pytest.raises(KeyboardInterrupt), products.used():
        assert "forward" in layers[0].__dict__
        raise KeyboardInterrupt
    assert all("forward" not in module.__dict__ for module in layers.modules())


def test_what_is_not_eligible_keeps_its_own(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BatchProducts.of(layers_of(torch.bfloat16)) is None
    assert BatchProducts.of(nn.Sequential(nn.LayerNorm(4))) is None
    monkeypatch.setattr(batch_products, "LEAST_WEIGHTS", 64 * 96 + 1)
    assert BatchProducts.of(layers_of()) is None


def test_a_product_that_fails_or_differs_is_not_used(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(rows: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("unknown schema")

        return forward

    monkeypatch.setattr(batch_products, "_by_onednn", fails)
    assert BatchProducts.of(layers_of()) is None
    monkeypatch.setattr(batch_products, "_by_onednn", lambda module: lambda rows: 1.01 * module(rows))
    assert BatchProducts.of(layers_of()) is None


@pytest.mark.parametrize("name", ["Intel(R) Xeon(R) Platinum 8481C", "AMD EPYC"])
@pytest.mark.parametrize("wide", [False, True])
def test_only_on_processors_on_which_the_librarys_products_are_slow(
    name: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": wide}, raising=False)
    monkeypatch.setattr(batch_products, "LEAST_WEIGHTS", 1)
    assert (BatchProducts.of(layers_of()) is not None) == (wide and "AMD" in name)


@pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
@pytest.mark.parametrize("near_tie", [None, 1e9])
def test_outputs_are_those_of_plain_generation(everywhere: None, scope: Scope, near_tie: float | None) -> None:
    model = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())
    assert model.decoder.products is not None
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8, near_tie=near_tie))
    assert engine.rounding()["products"] == "oneDNN"
    prompts = [engine.open(text) for text in ("A longer prompt, of many tokens.", "xy")]
    requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
    results = engine.generate(requests)
    assert [found.tokens for found, _ in results] == [engine.alone(*request) for request in requests]
    # Settling alone keeps to the bits of plain generation.
    assert not engine.notes
    assert near_tie is None or all(rerun for _, rerun in results)


def test_rounding_of_batches_is_measured_with_them(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that are a little off widen the near-ties of batches, and of nothing else."""
    plain = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer()).decoder.rounding

    def off(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda rows: (1 + 1e-5) * nn.functional.linear(rows, module.weight, module.bias)

    monkeypatch.setattr(batch_products, "_by_onednn", off)
    monkeypatch.setattr(BatchProducts, "_works", lambda self: True)
    coarse = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer()).decoder.rounding
    assert coarse.batches > 3 * plain.batches and coarse.logits == plain.logits
    assert coarse.near_tie_in_batches > 3 * coarse.near_tie


@pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
@pytest.mark.parametrize("wide", [False, True])
def test_near_ties_of_batches_are_looked_at_again(everywhere: None, scope: Scope, wide: bool) -> None:
    """By a rounding of batches that makes every token a near-tie, only the library's near-ties are run alone."""
    model = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())
    config = SearchConfig(scope=scope, max_new_tokens=8)
    engine, plain = Engine(model, config), Engine(model, config)
    plain.products = False
    requests = [(engine.open("xy"), mask) for mask in MASKS]
    expected = plain.generate(requests)
    # What the library's products call near ties: two of the five outputs, or none.
    leads = sorted(found.margin for found, _ in expected)
    near = (leads[1] + leads[2]) / 2 / MULTIPLE if wide else model.decoder.rounding.logits
    model.decoder.rounding = replace(model.decoder.rounding, logits=near, batches=1e9)
    engine = Engine(model, config)
    found = engine.generate(requests)
    assert [one.tokens for one, _ in found] == [one.tokens for one, _ in expected]
    assert [again for _, again in found] == [one.margin <= MULTIPLE * near for one, _ in expected]
    assert sum(again for _, again in found) == (2 if wide else 0)
    assert engine.executions == plain.executions


@pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
def test_a_wrong_token_of_a_batch_is_found_and_mended(
    everywhere: None, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products that are far off choose other tokens; each within their rounding is put right."""

    def off(module: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        noise = 0.3 * torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(1))
        return lambda rows: nn.functional.linear(rows, module.weight * (1 + noise), module.bias)

    monkeypatch.setattr(batch_products, "_by_onednn", off)
    monkeypatch.setattr(BatchProducts, "_works", lambda self: True)
    model = LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())
    model.decoder.rounding = replace(model.decoder.rounding, batches=1e9)
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    prompts = [engine.open(text) for text in ("A longer prompt, of many tokens.", "xy")]
    requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
    raw = engine._decode(requests, engine.units.steps([mask for _, mask in requests]), products=True)
    expected = [engine.alone(*request) for request in requests]
    assert [one.tokens for one in raw] != expected
    assert [found.tokens for found, _ in engine.generate(requests)] == expected
