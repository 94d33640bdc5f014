import numpy as np
import pytest

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.metrics import CHOICE_SCORES, choice_score, choice_score_name

CHOICES = ["no", "certainly not", "да, конечно", "1 2 3 4"]
TOKENS = [1, 2, 3, 7]
SUMS = np.array([-3.0, -6.5, -7.7, -7.0])
VALUES = {
    "acc": [-3.0, -6.5, -7.7, -7.0],
    "acc_norm": [-3 / 2, -6.5 / 13, -7.7 / 11, -7 / 7],
    "acc_bytes": [-3 / 2, -6.5 / 13, -7.7 / 20, -7 / 7],
    "acc_tokens": [-3 / 1, -6.5 / 2, -7.7 / 3, -7 / 7],
}
"""By hand: of the third choice 11 characters are 9 Cyrillic letters of 2 bytes, a comma and a space."""


@pytest.mark.parametrize("kind", CHOICE_SCORES)
def test_each_score_has_its_value_by_hand(kind: str) -> None:
    rows = zip(SUMS, TOKENS, CHOICES, strict=True)
    scores = [choice_score(kind, total / count, count, text) for total, count, text in rows]  # type: ignore[arg-type]
    assert scores == pytest.approx(VALUES[kind])


def test_the_four_scores_give_four_answers() -> None:
    assert [int(np.argmax(VALUES[kind])) for kind in CHOICE_SCORES] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("earlier", "name"),
    [("sum", "acc"), ("per-character", "acc_norm"), ("per-byte", "acc_bytes"), ("per-token", "acc_tokens")],
)
def test_names_of_earlier_runs_are_read(earlier: str, name: str) -> None:
    stored = SearchConfig().to_dict() | {"choice_score": earlier}
    assert SearchConfig.from_dict(stored).choice_score == name


def test_runs_of_before_the_delimiter_have_none() -> None:
    stored = SearchConfig().to_dict()
    del stored["target_delimiter"], stored["choice_score"]
    found = SearchConfig.from_dict(stored)
    assert (found.target_delimiter, found.choice_score) == ("", "acc_tokens")
    assert SearchConfig.from_dict(SearchConfig().to_dict()).target_delimiter is None


@pytest.mark.parametrize(("wrong", "nearest"), [("acc_byte", "acc_bytes"), ("per-char", "per-character")])
def test_an_unknown_score_names_the_nearest(wrong: str, nearest: str) -> None:
    known = "acc, acc_norm, acc_bytes, acc_tokens"
    with pytest.raises(InputError, match=rf"--choice-score needs one of {known}, not '{wrong}'; nearest: '{nearest}'"):
        choice_score_name(wrong)
