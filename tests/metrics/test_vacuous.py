"""Sequences that tell nothing: what a metric cannot see, and what cannot depend on the allocation."""

import pytest

from oracle.metrics import METRICS, VACUOUS, sees, told_nothing, why_vacuous

SCRIPTS = {
    "Russian": "Столица Италии — Рим.",
    "Hindi": "इटली की राजधानी रोम है।",
    "Chinese": "意大利的首都是罗马。",
    "Arabic": "عاصمة إيطاليا هي روما.",
    "Greek": "πρωτεύουσα της Ιταλίας",
    "punctuation": "?!...",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_rouge_sees_latin_letters_and_digits_only_and_chrf_all(text: str) -> None:
    for metric in ("rouge1", "rougeL"):
        assert not sees(metric, (text,))
        assert sees(metric, (text, "Rome")), "one reference that it sees is enough"
    assert sees("chrf", (text,)) and sees("exact_match", (text,))


def test_single_words_have_no_pair_that_rouge2_could_see() -> None:
    assert not sees("rouge2", ("Rome",)) and sees("rouge2", ("Rome it is",))


@pytest.mark.parametrize(
    ("kind", "counts", "expected"),
    [
        ("text", {"output_tokens": 1}, "one token"),
        ("tokens", {"output_tokens": 1}, "one token"),
        ("text", {"output_tokens": 2, "choice_tokens": 1}, ""),
        ("choice", {"output_tokens": 1, "choice_tokens": 2}, ""),
        ("choice", {"output_tokens": 9, "choice_tokens": 1}, "one token"),
        ("likelihood", {"output_tokens": 1, "reference_tokens": 3}, ""),
        ("likelihood", {"reference_tokens": 1}, "one token"),
        ("choice", {}, ""),
    ],
)
def test_one_token_tells_nothing_in_scope_decode_alone(kind: str, counts: dict[str, int], expected: str) -> None:
    assert why_vacuous(kind, "decode", **counts) == expected
    for scope in ("decode-last", "sequence"):
        assert why_vacuous(kind, scope, **counts) == ""
    assert why_vacuous(kind, "sequence", seen=False, **counts) == "unseen references"
    assert why_vacuous(kind, "sequence", one_score=True, **counts) == "one score"


def test_the_sentence_counts_every_reason_once() -> None:
    assert set(VACUOUS) == {"one token", "unseen references", "one score"}
    text = told_nothing(6, {"one token": 2, "unseen references": 1})
    assert text.startswith("on 3 the full model scores zero") and "; on 2 what is scored is one token" in text
    assert "on 1 the metric gives 0" in text and told_nothing(0, {}) == ""


def test_without_references_nothing_is_claimed() -> None:
    for metric in METRICS:
        assert sees(metric, ())
