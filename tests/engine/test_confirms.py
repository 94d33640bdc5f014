"""Verification by one forward of the library per output: the the same verdicts as plain generation, at less cost."""

from collections.abc import Callable
from itertools import combinations

import pytest
from tiny import tiny_tokenizer
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine import engine as engines
from oracle.models import LanguageModel

PROMPT = "Question 3?"

Plain = Callable[..., tuple[int, ...]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by an entry per plain generation."""
    calls: list[int] = []
    generate: Plain = engines.plain_generate

    def counting(*arguments: object, **settings: object) -> tuple[int, ...]:
        calls.append(1)
        return generate(*arguments, **settings)

    monkeypatch.setattr(engines, "plain_generate", counting)
    return calls


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("unit", ["layer", "sublayer"])
def test_one_forward_confirms_plain_generation(
    tiny_model: LanguageModel, scope: str, unit: str, counted: list[int]
) -> None:
    config = SearchConfig(scope=scope, unit=unit, max_new_tokens=8, device="cpu")  # type: ignore[arg-type]
    engine = Engine(tiny_model, config)
    units = range(engine.units.count)
    masks = [mask for size in (0, 1, 2, len(units)) for mask in list(combinations(units, size))[:6]]
    prompt = engine.open(PROMPT)
    outputs = [(mask, engine.alone(prompt, mask)) for mask in masks]
    counted.clear()
    assert engine.confirms(PROMPT, outputs) == [True] * len(masks)
    assert len(counted) <= len(masks) // 4, "near-ties alone are generated again"


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("family", ZOO)
def test_one_forward_suffices_in_every_family(family: str, scope: str, counted: list[int]) -> None:
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=6, device="cpu"))  # type: ignore[arg-type]
    masks = [(), (0,), (1, 3), (0, 2, 4), tuple(range(model.layers))]
    text = "A longer prompt, wider than a window."
    prompt = engine.open(text)
    outputs = [(mask, engine.alone(prompt, mask)) for mask in masks]
    counted.clear()
    assert engine.confirms(text, outputs) == [True] * len(masks)
    assert len(counted) <= 1, "near-ties alone are generated again"


def test_whatever_differs_is_found(tiny_model: LanguageModel) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu"))
    mask = (0, 2, 3)
    tokens = engine.alone(engine.open(PROMPT), mask)
    assert len(tokens) == 8
    stop = min(tiny_model.stop)
    others = [
        tuple((token + 1) % 200 if place == here else token for place, token in enumerate(tokens)) for here in range(8)
    ]
    wrong = [*others, tokens[:5], (*tokens, tokens[0]), (*tokens[:3], stop), (stop,), tokens[:1]]
    assert engine.confirms(PROMPT, [(mask, one) for one in wrong]) == [False] * len(wrong)
    # The same output of another allocation, where that gives another.
    full = tuple(range(tiny_model.layers))
    assert engine.alone(engine.open(PROMPT), full) != tokens
    assert engine.confirms(PROMPT, [(full, tokens), (mask, tokens)]) == [False, True]


def test_a_near_tie_is_left_to_plain_generation(tiny_model: LanguageModel, counted: list[int]) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu", near_tie=1e6))
    tokens = engine.alone(engine.open(PROMPT), (0, 1))
    counted.clear()
    assert engine.confirms(PROMPT, [((0, 1), tokens)]) == [True]
    assert len(counted) == 1
    # No setting makes rounding smaller than it is.
    lax = Engine(tiny_model, SearchConfig(max_new_tokens=8, device="cpu", near_tie=0.0))
    rounding = tiny_model.decoder.rounding.near_tie
    leads = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.PlainForward, "least_lead", lambda *rest: leads.append(rounding) or rounding)
        assert lax.confirms(PROMPT, [((0, 1), tokens)]) == [True]
    assert leads and len(counted) == 2
