"""Batched outcomes are those of plain generation on the cut model, whatever shares the batch."""

from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.metrics import agreement, bound_for, score_text
from oracle.models import truncated

MASKS = list(chain.from_iterable(combinations(range(LAYERS), count) for count in range(LAYERS + 1)))
PROMPTS = ["Hello there.", "A somewhat longer prompt, so that rows need padding.", "x"]


@pytest.fixture(params=["decode", "sequence"])
def engine(request: pytest.FixtureRequest, tiny_model) -> Engine:
    return Engine(tiny_model, SearchConfig(scope=request.param, max_new_tokens=12))


def test_every_mask_gives_the_tokens_of_plain_generation(engine) -> None:
    prompt = engine.open(PROMPTS[0])
    outputs = set()
    for allocation, (generation, _) in zip(MASKS, engine.generate([(prompt, m) for m in MASKS]), strict=True):
        assert generation.tokens == engine.alone(prompt, allocation), allocation
        outputs.add(generation.tokens)
    assert len(outputs) > len(MASKS) / 2, "the model must tell masks apart for this test to mean anything"


def test_full_depth_is_the_untouched_model(engine, tiny_model) -> None:
    prompt = engine.open(PROMPTS[1])
    [(generation, _)] = engine.generate([(prompt, tuple(range(LAYERS)))])
    plain = tiny_model.network.generate(prompt.tokens[None], do_sample=False, max_new_tokens=12, pad_token_id=257)
    assert generation.tokens == tuple(plain[0, prompt.length :].tolist())


def test_sequences_of_different_lengths_share_a_batch(engine) -> None:
    prompts = [engine.open(text) for text in PROMPTS]
    requests = [(prompt, mask) for mask in MASKS[::3] for prompt in prompts]
    mixed = engine.generate(requests)
    assert [generation.tokens for generation, _ in mixed] == [engine.alone(*request) for request in requests]


def test_outcomes_do_not_depend_on_the_batch(engine, tiny_model) -> None:
    prompts = [engine.open(text) for text in PROMPTS]
    requests = [(prompt, mask) for mask in MASKS for prompt in prompts]
    once = [generation.tokens for generation, _ in engine.generate(requests)]
    order = torch.randperm(len(requests), generator=torch.Generator().manual_seed(0)).tolist()
    small = Engine(tiny_model, replace(engine.config, batch_rows=7))
    shuffled = [generation.tokens for generation, _ in small.generate([requests[i] for i in order])]
    assert shuffled == [once[i] for i in order]


def test_a_stop_token_ends_a_row_and_others_go_on(engine, tiny_model) -> None:
    prompt = engine.open(PROMPTS[0])
    free = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in MASKS])]
    # The token that outputs reach at the most different steps is made a stop token.
    stop = max(set(chain(*free)), key=lambda token: len({tokens.index(token) for tokens in free if token in tokens}))
    stopping = replace(tiny_model)
    object.__setattr__(stopping, "stop", tiny_model.stop | {stop})
    results = Engine(stopping, engine.config).generate([(prompt, mask) for mask in MASKS])
    expected = [tokens[: tokens.index(stop) + 1] if stop in tokens else tokens for tokens in free]
    assert [generation.tokens for generation, _ in results] == expected
    assert [generation.finished for generation, _ in results] == [
        bool({stop, *tiny_model.stop} & set(tokens)) for tokens in free
    ]
    assert len({len(tokens) for tokens in expected}) > 2


def test_the_margin_is_the_smallest_lead_of_the_best_token(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(scope="sequence", max_new_tokens=6))
    prompt, mask = engine.open(PROMPTS[0]), (0, 3)
    [(generation, _)] = engine.generate([(prompt, mask)])
    ids = torch.cat([prompt.tokens, torch.tensor(generation.tokens)])[None]
    with torch.inference_mode():
        logits = truncated(tiny_model.network, mask)(ids).logits[0, prompt.length - 1 : -1]
    best, second = logits.topk(2).values.unbind(-1)
    assert generation.margin == pytest.approx((best - second).min().item(), abs=1e-4)


def test_a_near_tie_is_decided_by_running_alone(engine) -> None:
    prompt = engine.open(PROMPTS[0])
    engine.tie = float("inf")
    results = engine.generate([(prompt, mask) for mask in MASKS[:6]])
    assert all(rerun for _, rerun in results)
    assert [g.tokens for g, _ in results] == [engine.alone(prompt, mask) for mask in MASKS[:6]]


@torch.inference_mode()
def test_log_likelihood_is_that_of_the_cut_model(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(scope="sequence"))
    prompt, continuation = engine.open(PROMPTS[1]), list(b"an answer")
    values = engine.log_likelihoods(prompt, MASKS, continuation)
    for mask, value in zip(MASKS, values, strict=True):
        ids = torch.cat([prompt.tokens, torch.tensor(continuation)])[None]
        logits = truncated(tiny_model.network, mask)(ids, use_cache=False).logits[0, prompt.length - 1 : -1].double()
        gold = logits.log_softmax(-1)[range(len(continuation)), continuation]
        assert value == pytest.approx(gold.mean().item(), abs=1e-5)


@torch.inference_mode()
def test_log_likelihood_in_scope_decode_starts_from_the_full_model(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(scope="decode"))
    prompt = engine.open(PROMPTS[0])
    first = prompt.logits_V.double().log_softmax(-1)
    for token in (5, 77):
        assert engine.log_likelihoods(prompt, MASKS, [token]) == pytest.approx([first[token].item()] * len(MASKS))
    full = engine.log_likelihoods(prompt, [tuple(range(LAYERS))], list(b"abc"))
    whole = Engine(tiny_model, SearchConfig(scope="sequence")).log_likelihoods(
        prompt, [tuple(range(LAYERS))], list(b"abc")
    )
    assert full == pytest.approx(whole, abs=1e-5)


def test_a_prompt_longer_than_the_context_is_refused(engine) -> None:
    with pytest.raises(InputError, match="context of 256 tokens"):
        engine.open("x" * 250)
    assert engine.open("x" * (256 - 12)).length == 244


@pytest.mark.embedded
@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_embedded_model_agrees_with_plain_generation(embedded_model, scope) -> None:
    engine = Engine(embedded_model, SearchConfig(scope=scope, max_new_tokens=8))
    prompts = [engine.open(text) for text in ("What is the capital of France?", "Translate to German: Good morning.")]
    masks = [(), tuple(range(0, 30, 2)), tuple(range(30))]
    requests = [(prompt, mask) for mask in masks for prompt in prompts]
    results = engine.generate(requests)
    assert [generation.tokens for generation, _ in results] == [engine.alone(*request) for request in requests]
    assert "Paris" in embedded_model.text(results[-2][0].tokens)


def test_only_what_cannot_reach_its_threshold_is_dropped(engine, tiny_model) -> None:
    prompt = engine.open(PROMPTS[0])
    complete = [generation for generation, _ in engine.generate([(prompt, mask) for mask in MASKS])]
    reference = tiny_model.text(complete[-1].tokens)
    full = complete[-1].tokens
    for metric, score in {
        "agreement": lambda generation: agreement(generation.tokens, full),
        "rougeL": lambda generation: score_text("rougeL", tiny_model.text(generation.tokens), (reference,)),
    }.items():
        bound = bound_for(metric, (reference,), full, tiny_model.words_per_token)
        least = score(complete[-1]) * 0.9
        pruned = engine.generate([(prompt, mask) for mask in MASKS], [(bound, least)] * len(MASKS))
        for whole, (generation, _) in zip(complete, pruned, strict=True):
            if generation.dropped:
                assert score(whole) < least
                assert whole.tokens[: len(generation.tokens)] == generation.tokens
                assert not generation.finished
            else:
                assert generation.tokens == whole.tokens
        assert metric == "rougeL" or sum(generation.dropped for generation, _ in pruned) > len(MASKS) / 2


def test_a_small_memory_gives_the_same_outcomes(engine, tiny_model) -> None:
    prompt = engine.open(PROMPTS[0])
    wide = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in MASKS])]
    narrow = Engine(tiny_model, replace(engine.config, memory=1))
    row = narrow.footprint.row(LAYERS, 2 * 12 + prompt.length, prompt.length)
    held = prompt.length * LAYERS * narrow.footprint.states
    narrow.footprint = replace(narrow.footprint, limit=row * 8 + held)
    assert [generation.tokens for generation, _ in narrow.generate([(prompt, mask) for mask in MASKS])] == wide
    scores = engine.log_likelihoods(prompt, MASKS, list(b"abc"))
    assert narrow.log_likelihoods(prompt, MASKS, list(b"abc")) == pytest.approx(scores, abs=1e-6)


def test_a_memory_too_small_for_one_row_names_the_least_that_works(engine, tiny_model) -> None:
    narrow = Engine(tiny_model, replace(engine.config, memory=1))
    narrow.footprint = replace(narrow.footprint, limit=1000)
    prompt = narrow.open(PROMPTS[0])
    with pytest.raises(InputError, match=r"--memory .* give at least 1,"):
        narrow.generate([(prompt, MASKS[-1])])
    with pytest.raises(InputError, match="give at least 1,"):
        narrow.log_likelihoods(prompt, MASKS, list(b"abc"))
