import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.metrics import METRICS, score_text, score_texts

_pieces = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", ".", "Mat!", "1,000", "café", "&quot;"])
_texts = st.one_of(st.lists(_pieces, max_size=15).map(" ".join), st.text(max_size=30))
_references = st.lists(_texts, min_size=1, max_size=3).map(tuple)


@given(_texts, _references)
def test_bleu_and_chrf_are_those_of_sacrebleu(text: str, references: tuple[str, ...]) -> None:
    bleu = sacrebleu.sentence_bleu(text, references, use_effective_order=True).score
    chrf = sacrebleu.sentence_chrf(text, references).score
    assert score_text("bleu", text, references) == pytest.approx(bleu / 100, abs=1e-12)
    assert score_text("chrf", text, references) == pytest.approx(chrf / 100, abs=1e-12)


@given(_texts, _references)
def test_all_text_metrics_lie_between_zero_and_one(text: str, references: tuple[str, ...]) -> None:
    scores = score_texts(text, references)
    assert list(scores) == [name for name, metric in METRICS.items() if metric.kind == "text" and metric.always]
    assert all(0.0 <= score <= 1.0 for score in scores.values())
    assert scores == {name: score_text(name, text, references) for name in scores}


@given(st.lists(st.sampled_from(["red", "green", "blue", "7"]), min_size=2, max_size=12).map(" ".join))
def test_a_reference_itself_is_perfect(text: str) -> None:
    scores = score_texts(text, ("something else", text))
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match"])
def test_empty_output_scores_zero(name: str) -> None:
    assert score_text(name, "", ("a b c",)) == 0.0


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("  Paris.\n", "paris", 1.0),
        ("New   York\nCity", "new york city!", 1.0),
        ("STRASSE", "straße", 1.0),
        ("东京。", "东京", 1.0),
        ("Paris, France", "Paris France", 0.0),
        ("C", "C#", 0.0),
        ("50", "50%", 0.0),
        ("...", "?", 0.0),
        ("?", "?", 1.0),
        ("", "?", 0.0),
        ("", " ", 1.0),
    ],
)
def test_exact_match_forgives_case_space_and_final_punctuation(text: str, reference: str, expected: float) -> None:
    assert score_text("exact_match", text, (reference,)) == expected


def test_exact_match_takes_any_reference() -> None:
    assert score_text("exact_match", "b", ("a", "B")) == 1.0


def test_only_text_metrics_score_texts() -> None:
    with pytest.raises(InputError, match=r"'log_likelihood' is computed from likelihood.*rouge1"):
        score_text("log_likelihood", "a", ("a",))
    with pytest.raises(InputError, match=r"unknown metric 'rogue1'.*nearest: 'rouge1'"):
        score_text("rogue1", "a", ("a",))


def test_no_references_is_an_error() -> None:
    with pytest.raises(InputError, match="'bleu' needs at least one reference"):
        score_text("bleu", "a", ())
