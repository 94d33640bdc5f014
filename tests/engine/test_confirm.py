"""Confirmation by one forward of the library per output: the same verdicts as plain generation, at less cost."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from tiny import tiny_tokenizer
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine, confirm
from oracle.engine.confirm import Confirmation
from oracle.models import LanguageModel
from oracle.models.greedy import Processors

PROMPT = "Question 3?"
SCOPES = ("decode", "decode-last", "sequence")

Plain = Callable[..., tuple[int, ...]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by an entry per plain generation."""
    calls: list[int] = []
    generate: Plain = confirm.plain_generate

    def counting(*arguments: object, **settings: object) -> tuple[int, ...]:
        calls.append(1)
        return generate(*arguments, **settings)

    monkeypatch.setattr(confirm, "plain_generate", counting)
    return calls


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("unit", ["layer", "sublayer"])
def test_one_forward_confirms_plain_generation(
    tiny_model: LanguageModel, scope: str, unit: str, counted: list[int]
) -> None:
    config = SearchConfig(scope=scope, unit=unit, max_new_tokens=8, device="cpu")  # type: ignore[arg-type]
    engine = Engine(tiny_model, config)
    units = range(engine.units.count)
    masks = [mask for size in (0, 1, 2, len(units)) for mask in list(combinations(units, size))[:6]]
    prompt, confirms = engine.open(PROMPT), engine.confirming(PROMPT)
    outputs = [(mask, engine.alone(prompt, mask)) for mask in masks]
    assert all(confirms(*output) for output in outputs)
    assert len(counted) <= len(masks) // 4, "near-ties alone are generated again"


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ZOO)
def test_one_forward_suffices_in_every_family(family: str, scope: str, counted: list[int]) -> None:
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=6, device="cpu"))  # type: ignore[arg-type]
    masks = [(), (0,), (1, 3), (0, 2, 4), tuple(range(model.layers))]
    text = "A longer prompt, wider than a window."
    prompt, confirms = engine.open(text), engine.confirming(text)
    outputs = [(mask, engine.alone(prompt, mask)) for mask in masks]
    assert all(confirms(*output) for output in outputs)
    assert len(counted) <= 1, "near-ties alone are generated again"


def test_whatever_differs_is_found(tiny_model: LanguageModel) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu"))
    mask, confirms = (0, 2, 3), engine.confirming(PROMPT)
    tokens = engine.alone(engine.open(PROMPT), mask)
    assert len(tokens) == 8
    stop = min(tiny_model.stop)
    others = [
        tuple((token + 1) % 200 if place == here else token for place, token in enumerate(tokens)) for here in range(8)
    ]
    wrong = [*others, tokens[:5], (*tokens, tokens[0]), (*tokens[:3], stop), (stop,), tokens[:1], ()]
    assert not any(confirms(mask, one) for one in wrong)
    # The same output of another allocation, where that gives another.
    full = tuple(range(tiny_model.layers))
    assert engine.alone(engine.open(PROMPT), full) != tokens
    assert not confirms(full, tokens) and confirms(mask, tokens)


def test_a_stop_text_in_the_middle_is_found(tiny_model: LanguageModel, counted: list[int]) -> None:
    """Tokens that all lead, of an output that plain generation would have ended before."""
    plain = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu"))
    tokens = plain.alone(plain.open(PROMPT), (0, 2, 3))
    middle = tiny_model.tokenizer.decode(tokens[2:3])
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu", stop=(middle,)))
    shorter = engine.alone(engine.open(PROMPT), (0, 2, 3))
    assert shorter == tokens[: len(shorter)] and len(shorter) < len(tokens)
    confirms = engine.confirming(PROMPT)
    assert not confirms((0, 2, 3), tokens)
    counted.clear()
    assert confirms((0, 2, 3), shorter) and not counted


def test_a_near_tie_is_left_to_plain_generation(
    tiny_model: LanguageModel, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu", near_tie=1e6))
    tokens = engine.alone(engine.open(PROMPT), (0, 1))
    assert engine.confirming(PROMPT)((0, 1), tokens)
    assert len(counted) == 1
    # No setting makes rounding smaller than it is.
    lax = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu", near_tie=0.0))
    monkeypatch.setattr(Confirmation, "least_lead", lambda *rest: tiny_model.decoder.rounding.near_tie)
    assert lax.confirming(PROMPT)((0, 1), tokens)
    assert len(counted) == 2


def test_penalties_are_left_to_plain_generation(tiny_model: LanguageModel, counted: list[int]) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu"))
    settings = engine._settings(1)
    prompt = engine.open(PROMPT)
    tokens = engine.alone(prompt, (0, 1))
    penalised = Processors.of(tiny_model.network, {"repetition_penalty": 5.0}, stop=frozenset(), max_new_tokens=8)
    confirmation = Confirmation(tiny_model, prompt.tokens, replace(settings, processors=penalised))
    calls = engine.units.calls((0, 1))
    assert not confirmation(calls, tokens) and len(counted) == 1
