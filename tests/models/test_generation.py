"""Which settings of `generation_config` are honoured, left out, or change nothing."""

import json

import pytest
from generating import model_with
from transformers import GenerationConfig, LogitsProcessorList

from oracle.errors import InputError
from oracle.models.generation import HONOURED, NOT_USED, SAMPLING, GenerationSettings

NEUTRAL = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "suppress_tokens": [],
    "num_beams": 1,
    "guidance_scale": 1.0,
    "cache_implementation": "hybrid",
    "temperature": 1.0,
    "top_k": 50,
}


def settings_of(**settings: object) -> GenerationSettings:
    model = model_with(settings)
    return GenerationSettings.of(model.network, model.tokenizer)


def test_values_that_change_nothing_are_not_named() -> None:
    found = settings_of(**NEUTRAL)
    assert (found.honoured, found.not_used, found.sampling) == ({}, {}, {})
    assert found.lines() == []


def test_each_setting_of_the_tables_is_one_of_the_library() -> None:
    config = GenerationConfig()
    assert [name for name in {**HONOURED, **SAMPLING, **NOT_USED} if not hasattr(config, name)] == []


def test_settings_are_json_values() -> None:
    found = settings_of(
        sequence_bias={(65, 66): 2.0, (67,): -1.0},
        exponential_decay_length_penalty=(3, 1.5),
        watermarking_config={"bias": 2.5},
        num_beams=3,
    )
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["honoured"]["sequence_bias"] == [[[65, 66], 2.0], [[67], -1.0]]
    assert stored["honoured"]["exponential_decay_length_penalty"] == [3, 1.5]
    assert stored["not_used"]["num_beams"] == {"value": 3, "reason": "greedy decoding"}
    assert stored["not_used"]["watermarking_config"]["value"]["bias"] == 2.5


def test_the_smaller_minimum_is_named_as_generate_leaves_it_out() -> None:
    found = settings_of(min_length=30, min_new_tokens=4)
    assert found.honoured == {"min_new_tokens": 4}
    assert found.not_used["min_length"] == (30, "min_new_tokens takes precedence, as in generate")


@pytest.mark.parametrize(("ends", "expected"), [(7, {7}), ([7, 9], {7, 9}), (256, {256}), (None, {256})])
def test_end_tokens_are_those_of_generate_where_it_has_any(ends, expected) -> None:
    found = settings_of(eos_token_id=ends)
    assert found.end_tokens == expected
    assert bool(found.remarks) == (ends != 256)


@pytest.mark.parametrize("ends", ["abc", 1.5, [256, "7"], [[256]], True])
def test_end_tokens_that_are_no_token_ids_are_refused(ends) -> None:
    with pytest.raises(InputError, match="eos_token_id of the model's generation_config must be a token id or a list"):
        settings_of(eos_token_id=ends)


def test_classes_that_generate_in_a_way_of_their_own_are_named() -> None:
    model = model_with({})
    kind = type(model.network)

    class Own(kind):
        def generate(self, *args: object, **kwargs: object) -> None:
            raise NotImplementedError

        def _get_logits_processor(self, *args: object, **kwargs: object) -> LogitsProcessorList:
            return LogitsProcessorList()

    model.network.__class__ = Own
    assert GenerationSettings.of(model.network, model.tokenizer).remarks == (
        "Own has a generate() of its own, which is not used: decoding is greedy",
        "Own has logits processors of its own, which are not used",
    )


def test_long_values_are_shortened_in_lines_only() -> None:
    found = settings_of(suppress_tokens=list(range(100)))
    assert len(found.lines()[0]) < 120
    assert found.honoured["suppress_tokens"] == list(range(100))
