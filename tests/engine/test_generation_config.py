"""Greedy decoding is `generate(do_sample=False)` of the untouched model, whatever its `generation_config` asks for."""

import itertools
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from generating import ENDS, FULL, MASKS, NEW, PROMPTS, library, model_with
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.engine import Engine, TableGate
from oracle.errors import InputError
from oracle.metrics import agreement, bound_for, score_text
from oracle.models import LanguageModel

# Said once by `Engine.remarks` instead.
pytestmark = pytest.mark.filterwarnings("ignore:Unfeasible length constraints")

EACH: dict[str, Any] = {
    "repetition_penalty": 1.3,
    "encoder_repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 1,
    "suppress_tokens": [72, 101, 108, 111, 32],
    "begin_suppress_tokens": list(range(0, 256, 2)),
    "bad_words_ids": [[101], [72, 105], [32, 108, 111]],
    "sequence_bias": [[[65], 9.0], [[65, 66], 25.0], [[32], -4.0]],
    "exponential_decay_length_penalty": [3, 1.6],
    "min_length": 34,
    "min_new_tokens": 9,
    "forced_bos_token_id": 70,
    "forced_eos_token_id": 256,
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "stop_strings": ["g", "W", "G.", "L"],
    "eos_token_id": ENDS,
}


def check(model: LanguageModel, scope: str, masks: list[tuple[int, ...]] = MASKS, **config: Any) -> list[Any]:
    """Compares a batch of all prompts and masks with the library; returns the outputs."""
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=NEW, **config))
    requests = [(engine.open(text), mask) for mask in masks for text in PROMPTS]
    found = engine.generate(requests)
    for (prompt, mask), (generation, _) in zip(requests, found, strict=True):
        assert generation.tokens == engine.alone(prompt, mask), (mask, prompt.length)
        if mask == FULL or scope == "sequence":
            assert generation.tokens == library(model, prompt.tokens, mask), (mask, prompt.length)
    return [generation for generation, _ in found]


@cache
def plain_outputs(scope: str, *, ended: bool) -> tuple[tuple[int, ...], ...]:
    """The outputs without any setting, but for end tokens."""
    return tuple(one.tokens for one in check(model_with({"eos_token_id": ENDS} if ended else {}), scope))


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("name", EACH)
def test_each_setting_is_that_of_generate(name, scope) -> None:
    ends = {"eos_token_id": ENDS} if name in {"min_length", "min_new_tokens"} else {}
    found = check(model_with({**ends, name: EACH[name]}), scope)
    changed = tuple(one.tokens for one in found) != plain_outputs(scope, ended=bool(ends))
    assert changed != (name in {"remove_invalid_values", "renormalize_logits"})


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma2", "gpt2", "opt, norm before", "phi", "mixtral"])
def test_families_under_several_settings(family) -> None:
    names = ("repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "min_new_tokens", "eos_token_id")
    for scope in ("decode", "sequence"):
        check(model_with({name: EACH[name] for name in names}, family), scope, [*MASKS[:4], FULL])


@pytest.mark.parametrize("seed", range(12))
def test_any_combination_is_that_of_generate(seed) -> None:
    chosen = random.Random(seed)
    names = chosen.sample(sorted(EACH), chosen.randint(2, 7))
    if "min_length" in names and "min_new_tokens" in names:
        names.remove("min_length")
    settings = {name: EACH[name] for name in names}
    check(model_with(settings), ("decode", "sequence")[seed % 2], [*chosen.sample(MASKS[:-1], 3), FULL])


@pytest.mark.parametrize(("scope", "unit"), [*itertools.product(["decode", "sequence"], ["layer", "sublayer"])])
def test_outputs_do_not_depend_on_the_batch(scope, unit) -> None:
    names = ("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_new_tokens", "stop_strings")
    model = model_with({**{name: EACH[name] for name in names}, "min_new_tokens": 3, "eos_token_id": ENDS})
    units = LAYERS * (2 if unit == "sublayer" else 1)
    drawn = np.random.default_rng(0).random((32, units)) < 0.7
    masks = [tuple(np.flatnonzero(row).tolist()) for row in drawn]
    outputs = []
    for rows in (1, 3, 8, 32):
        engine = Engine(model, SearchConfig(scope=scope, unit=unit, max_new_tokens=NEW, batch_rows=rows))
        opened = [engine.open(text) for text in PROMPTS]
        requests = [(opened[place % 3], mask) for place, mask in enumerate(masks)]
        outputs.append([generation.tokens for generation, _ in engine.generate(requests)])
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3]
    assert outputs[0][:6] == [engine.alone(*request) for request in requests[:6]]
    assert len({len(tokens) for tokens in outputs[0]}) > 2


def test_a_repetition_penalty_changes_the_full_model_as_generate_does() -> None:
    model = model_with({"repetition_penalty": 1.05, "suppress_tokens": [10], "min_new_tokens": 4, "do_sample": True})
    engine = Engine(model, SearchConfig(max_new_tokens=NEW))
    prompt = engine.open("Hello there, hello there.")
    [(generation, _)] = engine.generate([(prompt, FULL)])
    assert generation.tokens == library(model, prompt.tokens, FULL)
    assert engine.remarks() == [
        "Full model: generation_config sets repetition_penalty 1.05, min_new_tokens 4, suppress_tokens [10]; honoured",
        "generation_config: do_sample=True: for sampling only; decoding is greedy",
    ]
    assert engine.generation()["honoured"] == {
        "repetition_penalty": 1.05,
        "min_new_tokens": 4,
        "suppress_tokens": [10],
    }


def test_nothing_asked_for_costs_nothing_and_says_nothing(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig())
    assert engine.processors is None
    assert engine.stop_texts is None
    assert engine.remarks() == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_beams": 4}, "generation_config: num_beams=4 is not used (greedy decoding)"),
        (
            {"guidance_scale": 1.5},
            "generation_config: guidance_scale=1.5 is not used (it needs a second, unconditional pass per token)",
        ),
        (
            {"prompt_lookup_num_tokens": 3},
            "generation_config: prompt_lookup_num_tokens=3 is not used (no assistant is used)",
        ),
        ({"max_time": 2.0}, "generation_config: max_time=2.0 is not used (outputs would depend on the machine)"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "generation_config: penalty_alpha=0.6 is not used (greedy decoding)"),
        (
            {"temperature": 0.7, "top_p": 0.8, "do_sample": True},
            "generation_config: do_sample=True, temperature=0.7, top_p=0.8: for sampling only; decoding is greedy",
        ),
        (
            {"eos_token_id": [10, 11]},
            "outputs end at generation_config's eos_token_id (10, 11), not at the tokenizer's '</s>' (256)",
        ),
        ({"eos_token_id": None}, "generation_config has no eos_token_id: outputs end at the tokenizer's '</s>' (256)"),
    ],
)
def test_what_is_not_used_is_named(settings, line) -> None:
    assert line in Engine(model_with(settings), SearchConfig()).remarks()


def test_a_watermark_is_named_and_left_out() -> None:
    model = model_with({"watermarking_config": {"bias": 2.5}, "repetition_penalty": 1.2})
    engine, bare = (
        Engine(one, SearchConfig(max_new_tokens=NEW)) for one in (model, model_with({"repetition_penalty": 1.2}))
    )
    [(found, _)] = engine.generate([(engine.open("x"), FULL)])
    [(expected, _)] = bare.generate([(bare.open("x"), FULL)])
    assert found.tokens == expected.tokens
    assert any("watermarking_config=" in line and "is not used" in line for line in engine.remarks())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"repetition_penalty": 2}, "strictly positive float"),
        ({"sequence_bias": [[[5000], 1.0]]}, "5000"),
        ({"bad_words_ids": [[-1]]}, "positive integers"),
        ({"repetition_penalty": "1.2"}, "TypeError"),
        ({"no_repeat_ngram_size": 2.5}, "strictly positive integer"),
        ({"exponential_decay_length_penalty": [3]}, "Error"),
    ],
)
def test_settings_that_the_library_refuses_are_refused_at_once(settings, reason) -> None:
    with pytest.raises(InputError, match=rf"cannot be honoured: .*{reason}.*--no-generation-config"):
        Engine(model_with(settings), SearchConfig())


def test_plain_greedy_decoding_on_request() -> None:
    settings = {"repetition_penalty": 1.3, "stop_strings": ["g", "W"]}
    model, bare = model_with(settings), model_with({})
    engine = Engine(model, SearchConfig(max_new_tokens=NEW, generation_config=False))
    [(found, _)] = engine.generate([(engine.open(PROMPTS[0]), FULL)])
    assert found.tokens == library(bare, engine.open(PROMPTS[0]).tokens, FULL)
    assert "left out (--no-generation-config)" in engine.remarks()[0]
    assert engine.generation()["left_out"] == {"repetition_penalty": 1.3, "stop_strings": ["g", "W"]}


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "suppress_tokens": [101, 32]},
        {"sequence_bias": [[[65], 3.0], [[66], -2.0]], "renormalize_logits": True},
        {"exponential_decay_length_penalty": [2, 1.5]},
        {"stop_strings": ["g", "W"], "min_new_tokens": 4},
        {"forced_eos_token_id": [256, 10]},
    ],
)
def test_same_output_is_decided_as_decoding_decides(settings, scope, monkeypatch) -> None:
    """Every mask, tested without decoding, also where few candidates are tried first."""
    monkeypatch.setattr("oracle.engine.same_output.CANDIDATES", 8)
    model = model_with(settings)
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=5))
    prompt = engine.open(PROMPTS[0])
    masks = [mask for count in range(LAYERS + 1) for mask in itertools.combinations(range(LAYERS), count)]
    outputs = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
    runs_NU = np.array([[unit in mask for unit in range(LAYERS)] for mask in masks])
    targets = {outputs[-1], *outputs[5:12]}
    for target in targets:
        answers = [answer for _, some in engine.reproduces(prompt, runs_NU, target) for answer in some]
        assert answers == [output == target for output in outputs]


def test_candidates_refute_only_what_decoding_refutes() -> None:
    """The cheap test is reached: some rows are refuted by tokens whose scores are their logits."""
    from oracle.engine.same_output import Refuter

    engine = Engine(model_with({"repetition_penalty": 1.3}), SearchConfig(max_new_tokens=4))
    prompt = engine.open(PROMPTS[0])
    row = (prompt.tokens, (65, 66))
    untouched = engine.processors.untouched(row, 258)
    seen = {*prompt.tokens.tolist(), 65, 66}
    assert {token for token in range(258) if not untouched[token]} == seen
    assert engine.processors.lowers
    tokens = engine.alone(prompt, (0, 1))
    refuter = Refuter(
        engine.model.decoder,
        prompt,
        tokens,
        tie=engine.tie,
        piece=64,
        head_rows=64,
        processors=engine.processors,
    )
    chosen = refuter._chosen(torch.randn(4, 258), 1)
    assert int(chosen[0]) == tokens[1]
    assert not {*chosen[1:].tolist()} & {*prompt.tokens.tolist(), *tokens[:2]}


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"stop_strings": ["g", "W"]}]
)
@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_gates_honour_it(settings, scope) -> None:
    model = model_with(settings)
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=NEW))
    prompts = [engine.open(text) for text in PROMPTS]
    gate = TableGate([np.ones((1, LAYERS), dtype=np.bool_)] * 3, policy="propagate")
    outputs = engine.generate_gated(prompts, gate)
    expected = [library(model, prompt.tokens, FULL) for prompt in prompts]
    assert [one.generation.tokens for one in outputs] == expected
    for score, tokens in zip(engine.score_gated(prompts, gate, expected), expected, strict=True):
        assert score.best_T.tolist() == list(tokens)


def test_likelihoods_are_the_models_own() -> None:
    plain, penalised = (
        Engine(model_with(settings), SearchConfig()) for settings in ({}, {"repetition_penalty": 1.5, "min_length": 99})
    )
    values = [engine.log_likelihoods(engine.open("x"), MASKS, list(b"xx")) for engine in (plain, penalised)]
    assert values[0] == values[1]


def test_near_ties_are_judged_on_scores() -> None:
    """A penalty of 1.5 may move a lead by three times what raw logits move; masks move none."""
    engine = Engine(model_with({"repetition_penalty": 1.5}), SearchConfig())
    masks = Engine(model_with({"suppress_tokens": [5]}), SearchConfig())
    decay = Engine(model_with({"exponential_decay_length_penalty": [2, 2.0]}), SearchConfig())
    assert engine.processors.threshold(0.01, 5) == pytest.approx(0.03)
    assert masks.processors.threshold(0.01, 5) == 0.01
    assert [decay.processors.threshold(0.01, own) for own in (2, 3, 5)] == pytest.approx([0.01, 0.04, 0.16])
    prompt = engine.open(PROMPTS[0])
    logits_V = prompt.logits_V.clone()
    seen, unseen = int(prompt.tokens[0]), 200
    logits_V[:] = -50.0
    logits_V[seen], logits_V[unseen] = 15.0, 10.02  # 10 against 10.02 after the penalty
    row = (prompt.tokens, ())
    tokens, [lead], [near] = engine.processors.choose(logits_V[None], [row], 0.01)
    assert tokens.tolist() == [unseen]
    assert lead == pytest.approx(0.02, abs=1e-4)
    assert near
    assert engine.processors.choose(logits_V[None], [row], 0.005)[2] == [False]


def test_a_lead_between_scores_of_minus_infinity_is_a_near_tie() -> None:
    model = model_with({"suppress_tokens": list(range(258))})
    engine = Engine(model, SearchConfig(max_new_tokens=3))
    prompt = engine.open("x")
    [(generation, rerun)] = engine.generate([(prompt, FULL)])
    assert rerun
    assert generation.tokens == library(model, prompt.tokens, FULL, 3)


def test_bounds_stay_exact_under_penalties_and_stop_texts() -> None:
    for settings, stop in (
        ({"repetition_penalty": 1.3}, ()),
        ({}, ("g", "WgW", "L")),
        ({"no_repeat_ngram_size": 2}, ("!q1",)),
    ):
        engine = Engine(model_with(settings), SearchConfig(max_new_tokens=NEW, stop=stop))
        prompt = engine.open(PROMPTS[0])
        masks = [mask for count in range(LAYERS + 1) for mask in itertools.combinations(range(LAYERS), count)]
        complete = [generation for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
        full, reference = complete[-1].tokens, engine.text(complete[-1].tokens) or "x"
        for metric in ("agreement", "rougeL", "exact_match"):
            bound = bound_for(metric, (reference,), full, engine.model.words_per_token)
            for whole, (generation, _) in zip(
                complete, engine.generate([(prompt, mask) for mask in masks], [(bound, 0.7)] * len(masks)), strict=True
            ):
                if metric == "agreement":
                    score = agreement(whole.tokens, full)
                else:
                    score = score_text(metric, engine.text(whole.tokens), (reference,))
                assert score < 0.7 if generation.dropped else generation.tokens == whole.tokens
