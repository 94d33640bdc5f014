import numpy as np
import pytest

from oracle.errors import InputError
from oracle.metrics import CHOICE_SCORES, check_choice_score, choice_score

CHOICES = ["yes", "not at all", "это не так совсем"]
TOKENS = [1, 3, 6]
SUMS = np.array([-3.0, -6.0, -9.6])


def harness(kind: str) -> int:
    """The choice by the formulas of lm-evaluation-harness: acc, acc_norm and acc_bytes of `process_results`."""
    characters = np.array([float(len(choice)) for choice in CHOICES])
    octets = np.array([float(len(choice.encode("utf-8"))) for choice in CHOICES])
    norms = {"sum": 1.0, "per-character": characters, "per-byte": octets, "per-token": np.array(TOKENS)}
    return int(np.argmax(SUMS / norms[kind]))


@pytest.mark.parametrize("kind", CHOICE_SCORES)
def test_each_score_picks_what_the_harness_picks(kind: str) -> None:
    rows = zip(SUMS, TOKENS, CHOICES, strict=True)
    scores = [choice_score(kind, total / count, count, text) for total, count, text in rows]  # type: ignore[arg-type]
    assert int(np.argmax(scores)) == harness(kind)


def test_the_scores_differ_in_their_choice() -> None:
    assert {kind: harness(kind) for kind in CHOICE_SCORES} == {
        "per-token": 2,
        "sum": 0,
        "per-character": 2,
        "per-byte": 2,
    }
    assert choice_score("per-byte", -2.0, 3, "да") == -1.5
    assert choice_score("per-character", -2.0, 3, "да") == -3.0


def test_an_unknown_score_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"--choice-score needs one of per-token, sum, .*, not 'per-char'; nearest: 'per-char"
    ):
        check_choice_score("per-char")
