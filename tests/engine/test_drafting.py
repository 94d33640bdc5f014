"""Drafts: lossless outputs, and acceptance compared with a few lines of the library alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from generating import model_with
from tiny import LAYERS
from transformers import DynamicCache, PreTrainedModel

from oracle.config import SearchConfig
from oracle.engine import DraftEngine
from oracle.errors import InputError

FAMILIES = ["llama", "gpt-neox", "mistral", "bloom"]
PROMPTS = ["Hello there", "A somewhat longer prompt."]
NEW, LENGTH = 12, 4
PENALTY = {"repetition_penalty": 1.3, "min_new_tokens": 3, "eos_token_id": [256, 3, 70, 152, 9]}


def engine_of(family: str = "llama", settings: dict | None = None, **changes: object) -> DraftEngine:
    config = SearchConfig(max_new_tokens=NEW, chat_template=False, **changes)
    return DraftEngine(model_with(settings or {}, family), config)


def plain(engine: DraftEngine, prompt: str) -> tuple[list[int], tuple[int, ...]]:
    """Ids of a prompt, and the library's own greedy output."""
    ids, network = engine.encode(prompt), engine.model.network
    found = network.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=NEW, pad_token_id=0)
    return ids, tuple(found[0, len(ids) :].tolist())


def random_masks(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2 * LAYERS)) < 0.8


def parts(network: PreTrainedModel) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Attention and MLP of every layer."""
    layers = next(module for name, module in network.named_modules() if name.split(".")[-1] in ("layers", "h"))
    names = ("self_attn", "attention", "self_attention"), ("mlp",)
    return [tuple(next(getattr(one, n) for n in some if hasattr(one, n)) for some in names) for one in layers]


@contextmanager
def zeroed(network: PreTrainedModel, mask: np.ndarray) -> Iterator[None]:
    """The untouched model, whose skipped parts add nothing to the residual stream."""

    def nothing(module: torch.nn.Module, inputs: object, output: object) -> object:
        return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)

    every = [module for pair in parts(network) for module in pair]
    hooks = [module.register_forward_hook(nothing) for module, runs in zip(every, mask, strict=True) if not runs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def without_layers(network: PreTrainedModel, mask: np.ndarray) -> Iterator[None]:
    """The untouched model, whose skipped layers hand on what they get; for models without separate branches."""
    layers = next(module for name, module in network.named_modules() if name.split(".")[-1] in ("layers", "h"))

    def same(module: torch.nn.Module, inputs: tuple, output: object) -> object:
        return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]

    hooks = [layer.register_forward_hook(same) for layer, runs in zip(layers, mask[::2], strict=True) if not runs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def naive(
    network: PreTrainedModel, ids: list[int], tokens: tuple[int, ...], mask: np.ndarray, skipped: Any
) -> list[int]:
    """Accepted tokens from every prefix, by the library: the prefix at full depth, then greedy tokens of the draft."""
    found = []
    for known in range(1, len(tokens)):
        prefix, cache = [*ids, *tokens[:known]], DynamicCache()
        network(torch.tensor([prefix[:-1]]), cache=cache)
        count, last = 0, prefix[-1]
        with skipped(network, mask):
            while count < LENGTH and known + count < len(tokens):
                last = int(network(torch.tensor([[last]]), cache=cache).logits[0, -1].argmax())
                if last != tokens[known + count]:
                    break
                count += 1
        found.append(count)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_acceptance_in_batches_is_that_of_the_library(family: str) -> None:
    engine = engine_of(family)
    ids, tokens = plain(engine, PROMPTS[0])
    output, masks = engine.verified(ids, tokens), random_masks(6)
    masks[0, :] = True
    masks[1] = np.repeat([True, False, True, True, True], 2)
    if family == "bloom":  # its MLP adds the residual stream itself
        masks = np.repeat(masks[:, ::2], 2, axis=1)
    skipped = without_layers if family == "bloom" else zeroed
    expected = [naive(engine.model.network, ids, tokens, mask, skipped) for mask in masks]
    found = engine.accepted(output, masks, LENGTH)
    assert found.lengths_AX.tolist() == expected
    assert found.lengths_AX[0].tolist() == [min(LENGTH, len(tokens) - known) for known in output.prefixes]
    assert 0 < found.lengths_AX[1:].sum() < found.lengths_AX[0].sum() * 5


@pytest.mark.parametrize("settings", [{}, PENALTY], ids=["greedy", "penalty"])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_plain_generation(family: str, settings: dict) -> None:
    engine = engine_of(family, settings)
    masks = np.repeat(random_masks(4)[:, ::2], 2, axis=1) if family == "bloom" else random_masks(4)
    masks[0] = True
    for prompt in PROMPTS:
        ids, tokens = plain(engine, prompt)
        for mask, length in product(masks, (0, 1, LENGTH)):
            found = engine.speculate(ids, lambda known, mask=mask: mask, length)
            assert found.tokens == tokens
            assert found.accepted <= found.drafted
        assert engine.speculate(ids, lambda known: masks[0], LENGTH).accepted >= len(tokens) - 1 - found.rounds


def test_rounds_accept_what_was_computed_beforehand() -> None:
    engine = engine_of()
    ids, tokens = plain(engine, PROMPTS[0])
    output = engine.verified(ids, tokens)
    for mask in random_masks(8, seed=1):
        lengths = engine.accepted(output, mask[None], LENGTH).lengths_AX[0]
        known, accepted = 1, 0
        while known < NEW:
            accepted += (here := min(int(lengths[known - 1]), NEW - known - 1))
            known += here + 1
        assert engine.speculate(ids, lambda known, mask=mask: mask, LENGTH).accepted == accepted


@pytest.mark.parametrize("settings", [{}, PENALTY], ids=["greedy", "penalty"])
def test_enumerated_first_tokens_are_those_of_drafts(settings: dict) -> None:
    engine = engine_of(settings=settings)
    ids, tokens = plain(engine, PROMPTS[1])
    output = engine.verified(ids, tokens)
    layers = np.array(list(product((False, True), repeat=LAYERS)))
    drafted = engine.accepted(output, np.repeat(layers, 2, axis=1), 1).lengths_AX
    assert 0 < drafted.sum() < drafted.size
    for place, known in enumerate(output.prefixes):
        assert engine.first_tokens(output, known, layers).tolist() == drafted[:, place].tolist()


def test_masks_that_differ_by_prefix() -> None:
    engine = engine_of()
    ids, tokens = plain(engine, PROMPTS[0])
    output = engine.verified(ids, tokens)
    masks = random_masks(len(output.prefixes), seed=2)
    whole = engine.accepted(output, masks, LENGTH).lengths_AX
    assert engine.accepted_each(output, masks, LENGTH).lengths_AX[0].tolist() == np.diag(whole).tolist()
    found = engine.speculate(ids, lambda known: masks[known - 1], LENGTH)
    assert found.tokens == tokens and found.accepted > 0


def test_agreement_is_that_of_one_pass_of_the_draft() -> None:
    engine = engine_of()
    ids, tokens = plain(engine, PROMPTS[0])
    output, masks, network = engine.verified(ids, tokens), random_masks(6), engine.model.network
    expected = []
    for mask in masks:
        cache = DynamicCache()
        with torch.inference_mode():
            network(torch.tensor([ids]), cache=cache)
            with zeroed(network, mask):
                best = network(torch.tensor([tokens[:-1]]), cache=cache).logits[0].argmax(-1)
        expected.append(float((best == torch.tensor(tokens[1:])).float().mean()))
    assert engine.agreements(output, masks).tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_a_near_tie_is_settled_by_the_known_output() -> None:
    engine = engine_of(near_tie=1e9)  # every token counts as one
    ids, tokens = plain(engine, PROMPTS[0])
    wanted = tuple((token + 1) % 256 for token in tokens)
    found = engine.speculate(ids, lambda known: np.ones(2 * LAYERS, dtype=bool), LENGTH, wanted)
    assert (found.tokens, found.settled) == (wanted, NEW)
    assert engine.speculate(ids, lambda known: np.ones(2 * LAYERS, dtype=bool), LENGTH).tokens == tokens


def test_rows_that_influence_each_other_are_refused() -> None:
    model = model_with({})
    model.decoder.rounding = replace(model.decoder.rounding, interact=True)
    with pytest.raises(InputError, match="influence each other"):
        DraftEngine(model, SearchConfig(max_new_tokens=NEW, chat_template=False))
