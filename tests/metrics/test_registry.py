import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.metrics import METRICS, agreement, get_metric, score_text

_tokens = st.lists(st.integers(0, 3), max_size=8)


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_metrics_lie_between_their_floor_and_the_score_of_a_copy(text: str, reference: str) -> None:
    """What a floor promises: no output scores less, so that a full model at the floor lets every output qualify."""
    for name, metric in METRICS.items():
        assert get_metric(name) is metric
        if metric.kind == "text":
            assert metric.floor is not None
            value = score_text(name, text, (reference,))
            assert metric.floor <= value <= 1
            if metric.always and metric.kind == "text":
                assert score_text(name, "one two three four", ("one two three four",)) == pytest.approx(1)


def test_a_floor_is_reached_by_an_output_that_shares_nothing() -> None:
    for name, metric in METRICS.items():
        if metric.kind == "text":
            assert score_text(name, "xyz", ("one two three four",)) == metric.floor


def test_log_likelihoods_have_no_floor() -> None:
    """A text may be arbitrarily unlikely."""
    assert get_metric("log_likelihood").floor is None


@pytest.mark.parametrize(
    ("name", "nearest"), [("rougel", "rougeL"), ("ROUGE-L", "rougeL"), ("accuracy", "choice_accuracy")]
)
def test_an_unknown_metric_names_the_known_and_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        get_metric(name)
    message = str(caught.value)
    assert f"nearest: {nearest!r}" in message
    assert all(known in message for known in METRICS)


def test_nothing_near_gives_no_hint() -> None:
    with pytest.raises(InputError, match="unknown metric 'zzz'") as caught:
        get_metric("zzz")
    assert "nearest" not in str(caught.value)


def test_agreement_counts_positions_over_the_longer() -> None:
    assert agreement([], []) == 1.0
    assert agreement([], [1]) == 0.0
    assert agreement([1, 2], [1, 2, 3, 4]) == 0.5
    assert agreement((1, 9, 3, 4), (1, 2, 3)) == 0.5


@given(_tokens, _tokens)
def test_agreement_is_one_only_for_identical_tokens(tokens: list[int], full: list[int]) -> None:
    assert (agreement(tokens, full) == 1.0) == (tokens == full)
    assert agreement(tokens, full) == agreement(full, tokens)
    assert 0.0 <= agreement(tokens, full) <= 1.0
