"""Every family, unmodified: the adapter is the model, allocations are the model without the other layers."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine, TableGate
from oracle.engine.row_batch import RowBatch
from oracle.models import Decoder, LanguageModel, truncated
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call

MASKS = [(), (2,), (0, 4), (1, 2, 3), (0, 1, 3, 4), tuple(range(LAYERS))]
MAY_COPY_ITS_PROMPT = {"gptj", "bloom", "falcon", "falcon, alibi"}
"""Families whose attention is not exchangeable in every version of the library: rows get copies of the prompt's states.
"""

DROPS_OLD_KEYS = {"mistral", "gemma2", "gemma3"}
"""Families whose own cache drops what a sliding window hides, so that sums run over fewer terms."""


@pytest.fixture(scope="module", params=ZOO)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family) -> LanguageModel:
    return LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())


@torch.inference_mode()
def test_some_layers_are_the_model_without_the_others_bit_for_bit(model) -> None:
    tokens = torch.randint(0, 250, (3, 13), generator=torch.Generator().manual_seed(1))
    full = model.network(tokens).logits
    for allocation in MASKS:
        cache = RowCache(LAYERS, 13)
        step = model.decoder.begin(tokens, cache=cache, positions_RT=torch.arange(13)[None])
        hidden = step.hidden_RTD
        for layer in allocation:
            cache.step = layer
            hidden = model.decoder.run(Call(layer), hidden, step)
        logits = model.decoder.finish(hidden)
        plain = (
            full if len(allocation) == LAYERS else truncated(model.network, allocation)(tokens, use_cache=False).logits
        )
        assert torch.equal(logits, plain), allocation
        assert len(allocation) == LAYERS or not torch.allclose(logits, full, atol=1e-3)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_padded_batches_of_several_sequences_give_the_tokens_of_plain_generation(model, scope) -> None:
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
    engine.tie = -1.0  # no second chance: what the batch gives is what counts
    prompts = [engine.open(text) for text in ("A longer prompt, wider than a window.", "x")]
    requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
    for request, (generation, rerun) in zip(requests, engine.generate(requests), strict=True):
        assert not rerun
        assert generation.tokens == engine.alone(*request), request[1]


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_scores_of_a_shared_pass_are_those_of_the_cut_model(model, scope) -> None:
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=12))
    prompt = engine.open("A longer prompt, wider than a window.")
    output = list(b"an answer of some length")
    values = engine.log_likelihoods(prompt, MASKS, output)
    if scope == "decode":  # gates run each row alone, token after token
        gate = TableGate([np.isin(np.arange(LAYERS), mask)[None] for mask in MASKS], policy="omit")
        scores = engine.score_gated([prompt] * len(MASKS), gate, [output] * len(MASKS))
        assert values == pytest.approx([score.log_likelihoods_T.mean() for score in scores], abs=1e-4)
        return
    ids = torch.cat([prompt.tokens, torch.tensor(output)])[None]
    for mask, value in zip(MASKS, values, strict=True):
        with torch.inference_mode():
            logits = truncated(model.network, mask)(ids, use_cache=False).logits[0, prompt.length - 1 : -1]
        gold = logits.double().log_softmax(-1)[range(len(output)), output]
        assert value == pytest.approx(gold.mean().item(), abs=1e-4)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_reproduction_is_what_generation_says(model, scope) -> None:
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=6))
    prompt = engine.open("Hello there.")
    runs = np.array(list(product([False, True], repeat=LAYERS)))
    masks = [tuple(np.flatnonzero(row).tolist()) for row in runs]
    outputs = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
    for wanted in sorted(set(outputs), key=outputs.count)[-3:]:
        found = [answer for _, answers in engine.reproduces(prompt, runs, wanted) for answer in answers]
        assert found == [output == wanted for output in outputs]


@torch.inference_mode()
def test_alone_means_the_very_numbers_of_plain_generation(model) -> None:
    """Near-ties are decided alone: bit for bit the logits of `generate` on the cut model."""
    engine = Engine(model, SearchConfig(scope="sequence", max_new_tokens=12))
    prompt = engine.open("A longer prompt, wider than a window.")
    for mask in MASKS[1:]:
        cut = truncated(model.network, mask)
        plain = cut.generate(
            prompt.tokens[None],
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=None,
            return_dict_in_generate=True,
            output_logits=True,
        )
        schedule = engine.units.steps([mask])
        batch = RowBatch(model.decoder, [prompt], schedule, new_tokens=12, by_reference=False)
        logits = [model.decoder.finish(batch.run_rest())[0, 0]]
        for token in plain.sequences[0, prompt.length : -1]:
            logits.append(model.decoder.finish(batch.forward(token[None], [int(token)]))[0, 0])
        if model.name in DROPS_OLD_KEYS:
            torch.testing.assert_close(torch.stack(logits), torch.cat(plain.logits), rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(torch.stack(logits), torch.cat(plain.logits)), mask


def test_which_families_share_their_prompt(model, family) -> None:
    assert isinstance(model.decoder, Decoder)
    assert model.decoder.shares_prompts or family in MAY_COPY_ITS_PROMPT
