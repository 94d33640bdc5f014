import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.metrics import METRICS, agreement, get_metric

_tokens = st.lists(st.integers(0, 3), max_size=8)


def test_the_registry_agrees_with_itself() -> None:
    assert all(get_metric(name) is metric and metric.name == name for name, metric in METRICS.items())
    assert {metric.kind for metric in METRICS.values()} == {"text", "tokens", "likelihood", "choice"}


def test_only_log_likelihood_is_unbounded_below() -> None:
    assert [name for name, metric in METRICS.items() if metric.floor is None] == ["log_likelihood"]
    assert {metric.floor for metric in METRICS.values()} == {0.0, None}


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
