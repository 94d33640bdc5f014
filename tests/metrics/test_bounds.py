"""A bound never lies below what some continuation reaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.metrics import agreement, bound_for, score_text

WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "Mat.", "- ", "x1", "é", "!?"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)
PIECES = st.lists(st.sampled_from(["the", " cat", " c", "at", " sat", ".", " ", "\n", "e-g", "é", " mat"]), max_size=14)


@pytest.mark.parametrize("metric", ["rougeL", "exact_match"])
@given(pieces=PIECES, known=st.integers(0, 14), references=st.lists(TEXTS, min_size=1, max_size=3).map(tuple))
def test_text_bounds_hold_at_every_step(metric, pieces, known, references) -> None:
    known = min(known, len(pieces))
    bound = bound_for(metric, references, (), words_per_token=2)
    upper = bound.upper([0] * known, "".join(pieces[:known]), len(pieces) - known)
    assert score_text(metric, "".join(pieces), references) <= upper + 1e-12


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8), st.integers(0, 8))
def test_agreement_bound_holds_at_every_step(tokens, full, known) -> None:
    known = min(known, len(tokens))
    if not full and not known:
        return  # no output has no token
    bound = bound_for("agreement", (), full, words_per_token=2)
    assert agreement(tokens, full) <= bound.upper(tokens[:known], "", len(tokens) - known) + 1e-12


def test_bounds_fall_as_hope_fades() -> None:
    bound = bound_for("rougeL", ("the cat sat on the mat",), (), words_per_token=1)
    uppers = [bound.upper([], "dog " * count, 10 - count) for count in range(1, 10)]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[0] > 0.8 and uppers[-1] < 0.4
    exact = bound_for("exact_match", ("Paris",), (), words_per_token=1)
    assert [exact.upper([], text, 5) for text in ("", "Par", "paris.", "Paris. It", "Rome")] == [1, 1, 1, 0, 0]


def test_other_metrics_have_no_bound() -> None:
    assert bound_for("bleu", ("a",), (), words_per_token=1) is None
