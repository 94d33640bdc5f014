"""Metrics of answers, computed on request."""

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.metrics import METRICS, get_metric, score_text, score_texts
from oracle.metrics.answers import _verified

CASES = [
    ("numeric", "So 3 + 4 = 7.", ("7",), 1),
    ("numeric", "It costs $1,000.00 in all.", ("#### 1000",), 1),
    ("numeric", "7 or 8", ("7",), 0),
    ("numeric", "no number", ("7",), 0),
    ("numeric", "-3", ("3", "-3.0"), 1),
    ("choice_letter", "The answer is (B).", ("B",), 1),
    ("choice_letter", "B. Paris", ("B. Paris",), 1),
    ("choice_letter", "Answer: C", ("(B)",), 0),
    ("choice_letter", "Paris", ("B",), 0),
    ("choice_letter", "A", ("Paris",), 0),
    ("contains", "The capital is  PARIS, of course", ("Paris",), 1),
    ("contains", "Lyon", ("Paris", "lyon"), 1),
    ("contains", "Par is", ("Paris",), 0),
    ("token_f1", "the Eiffel Tower", ("Eiffel Tower!",), 1),
    ("token_f1", "a tall tower", ("the tower of Paris",), 2 / 5),
    ("token_f1", "the", ("a",), 1),
    ("token_f1", "", ("Paris",), 0),
]


@pytest.mark.parametrize(("metric", "text", "references", "expected"), CASES)
def test_by_hand(metric: str, text: str, references: tuple[str, ...], expected: float) -> None:
    assert score_text(metric, text, references) == pytest.approx(expected)


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3))
def test_values_are_shares(text: str, references: list[str]) -> None:
    for name in ("numeric", "choice_letter", "contains", "token_f1"):
        assert 0 <= score_text(name, text, tuple(references)) <= 1


def test_rouge_is_the_package_s() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    text, reference = "The cats are running.\nDogs sleep.", "A cat runs.\nThe dog sleeps"
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(reference, text)["rougeL"].fmeasure
    summed = RougeScorer(["rougeLsum"]).score(reference, text)["rougeLsum"].fmeasure
    assert score_text("rougeL-stemmed", text, (reference,)) == stemmed > score_text("rougeL", text, (reference,))
    assert score_text("rougeLsum", text, ("nothing", reference)) == summed


def test_they_are_computed_on_request_only() -> None:
    assert not get_metric("numeric").always and "numeric" in METRICS
    assert set(score_texts("a", ("b",))) == {"rouge1", "rouge2", "rougeL", "bleu", "chrf", "exact_match"}


def test_math_verify_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("math_verify")
    module.parse = lambda text: text.strip("$ ")  # type: ignore[attr-defined]
    module.verify = lambda gold, answer: {gold, answer} == {"1/2", "\\frac{1}{2}"}  # type: ignore[attr-defined]
    _verified.cache_clear()
    monkeypatch.setitem(sys.modules, "math_verify", module)
    assert score_text("numeric", "$\\frac{1}{2}$", ("1/2",)) == 1
    _verified.cache_clear()
    monkeypatch.setitem(sys.modules, "math_verify", None)
    assert score_text("numeric", "$\\frac{1}{2}$", ("1/2",)) == 1, "both end in 2"
    assert score_text("numeric", "$\\frac{1}{3}$", ("1/2",)) == 0
    _verified.cache_clear()
