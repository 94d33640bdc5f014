"""Outputs end at stop texts as the library's stop strings do; the scored text ends before them."""

import itertools

import pytest
import torch
from generating import FULL, MASKS, NEW, PROMPTS, library, model_with
from tiny import LAYERS
from transformers import StopStringCriteria

from oracle.config import SearchConfig
from oracle.engine import Engine, Evaluator
from oracle.errors import InputError
from oracle.types import Proposal, Sequence


def engine_with(stop: tuple[str, ...], scope: str = "decode", **changes: object) -> Engine:
    return Engine(model_with({}), SearchConfig(scope=scope, max_new_tokens=NEW, stop=stop, **changes))


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("stop", [("g",), ("WgW", "k"), ("!", "G.", "\t")])
def test_case_39_stop_is_generate_with_stop_strings(stop, scope) -> None:
    engine, named = engine_with(stop, scope), model_with({"stop_strings": list(stop)})
    free = engine_with((), scope)
    requests = [(engine.open(text), mask) for mask in MASKS for text in PROMPTS]
    shorter = 0
    for (prompt, mask), (generation, _) in zip(requests, engine.generate(requests), strict=True):
        assert generation.tokens == engine.alone(prompt, mask)
        if mask == FULL or scope == "sequence":
            assert generation.tokens == library(named, prompt.tokens, mask)
        whole = free.alone(prompt, mask)
        assert whole[: len(generation.tokens)] == generation.tokens
        assert generation.finished == (len(generation.tokens) < len(whole) or generation.finished)
        shorter += len(generation.tokens) < len(whole)
        assert not any(text in engine.text(generation.tokens) for text in stop)
    assert shorter


def test_the_scored_text_ends_before_the_stop_text_and_tokens_do_not() -> None:
    engine = engine_with(("WgW",))
    tokens = [70, 54, 70, 54]  # g W g W
    assert engine.model.text(tokens) == "gWgW"
    assert engine.text(tokens) == "g"
    assert engine.text(tokens[:2]) == "gW"


def test_a_stop_text_of_special_tokens_is_cut_where_it_is_hidden() -> None:
    engine = engine_with(("</s>W", "g</s>g"))
    assert engine.text([38, 256, 54]) == "G"
    assert engine.text([38, 70, 256, 70]) == "G"
    assert engine.text([38, 70, 256]) == "Gg"


def test_a_stop_text_may_begin_in_the_prompt() -> None:
    """As in the library: the last tokens of the prompt count."""
    engine, named = engine_with((".!",)), model_with({"stop_strings": [".!"]})
    prompt = engine.open(PROMPTS[1])
    [(generation, _)] = engine.generate([(prompt, FULL)])
    assert PROMPTS[1].endswith(".")
    assert generation.tokens == library(named, prompt.tokens, FULL)
    assert engine.text(generation.tokens) == "!"  # the output itself holds no stop text


@pytest.mark.parametrize("seed", range(4))
def test_stop_texts_are_reached_where_the_library_finds_them(seed) -> None:
    engine = engine_with(("ab", "b\u00e9", "</s>", "zzzz"))
    generator = torch.Generator().manual_seed(seed)
    letters = torch.tensor([engine.encode(text)[0] for text in "abz"] + engine.encode("\u00e9") + [256])
    criterion = StopStringCriteria(engine.model.tokenizer, ["ab", "b\u00e9", "</s>", "zzzz"])
    rows = []
    for _ in range(64):
        count, own = torch.randint(1, 6, (2,), generator=generator).tolist()
        ids = letters[torch.randint(len(letters), (count + own,), generator=generator)]
        rows.append((ids[:count], ids[count:].tolist()))
    expected = [bool(criterion(torch.cat([prompt, torch.tensor(own)])[None], None)) for prompt, own in rows]
    assert engine.stop_texts.reached(rows) == expected
    assert {True, False} == set(expected)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_stop_texts_do_not_depend_on_the_batch(scope) -> None:
    masks = [mask for count in range(LAYERS + 1) for mask in itertools.combinations(range(LAYERS), count)]
    outputs = []
    for rows in (1, 3, 8, 32):
        engine = engine_with(("g", "W", "k"), scope, batch_rows=rows)
        opened = [engine.open(text) for text in PROMPTS]
        requests = [(opened[place % 3], mask) for place, mask in enumerate(masks)]
        outputs.append([generation.tokens for generation, _ in engine.generate(requests)])
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3]
    assert len({len(tokens) for tokens in outputs[0]}) > 2


def test_metrics_see_the_text_before_the_stop_text() -> None:
    engine = engine_with(("g",))
    prompt = engine.open(PROMPTS[1])
    tokens = engine.alone(prompt, FULL)
    assert engine.model.text(tokens).endswith("g")
    reference = engine.model.text(tokens).removesuffix("g")
    sequence = Sequence(id="s", prompt=PROMPTS[1], references=(reference,))
    evaluator = Evaluator(engine, metrics=(), shuffled={"s": sequence})
    [[outcome]] = evaluator.evaluate([(sequence, [Proposal(allocation=FULL, family="full")])])
    assert outcome.text == reference
    assert outcome.quality["exact_match"] == 1.0
    assert outcome.tokens == tokens
    assert outcome.finished


def test_what_may_be_cut_from_an_unfinished_text() -> None:
    engine = engine_with(("\n\nQ:", "Qu"))
    assert engine.stop_texts.beginnings("Paris\n\nQ") == ["Paris", "Paris\n\n", "Paris\n\nQ"]
    assert engine.stop_texts.beginnings("Paris") == ["Paris"]
    assert engine.stop_texts.beginnings("Paris\n\ufffd") == ["Paris", "Paris\n"]


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(InputError, match="--stop needs a text of at least one character"):
        SearchConfig(stop=("",))


def test_a_stop_text_that_no_token_can_write_is_refused() -> None:
    model = model_with({})
    model.tokenizer.backend_tokenizer.decoder = None
    with pytest.raises(InputError, match="the stop text '\u4e2d' contains what no token"):
        Engine(model, SearchConfig(stop=("\u4e2d",)))


def test_pruning_is_off_by_name_where_texts_hide_the_stop_text() -> None:
    engine = engine_with(("</s>W",), prune=True)
    assert "--prune is off: the stop text '</s>W' has tokens that texts do not show" in engine.remarks()

    class Never:
        def upper(self, tokens: object, text: str, remaining: int) -> float:
            return -1.0

    prompt = engine.open("x")
    [(generation, _)] = engine.generate([(prompt, FULL)], [(Never(), 0.0)])
    assert not generation.dropped


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "gemma2"])
def test_other_families_stop_as_generate_does(family) -> None:
    model = model_with({}, family)
    free = Engine(model, SearchConfig(max_new_tokens=NEW))
    prompts = [free.open(text) for text in (*PROMPTS, "What is it?", "abc", "Name one.", "1 2 3")]
    outputs = [free.alone(prompt, FULL) for prompt in prompts]
    texts = [[model.text([token]) for token in tokens[1:-1]] for tokens in outputs]
    place, stop = next(
        (place, one) for place, own in enumerate(texts) for one in own if one and one.isprintable() and one.isascii()
    )
    engine = Engine(model, SearchConfig(max_new_tokens=NEW, stop=(stop,)))
    [(generation, _)] = engine.generate([(prompts[place], FULL)])
    model.network.generation_config.stop_strings = [stop]
    assert generation.tokens == library(model, prompts[place].tokens, FULL)
    assert len(generation.tokens) < len(outputs[place])
