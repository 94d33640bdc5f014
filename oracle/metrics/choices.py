"""Scores of multiple-choice answers: log-likelihoods, by the normalisations of lm-evaluation-harness."""

from typing import Literal, get_args

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["CHOICE_SCORES", "ChoiceScore", "check_choice_score", "choice_score"]

ChoiceScore = Literal["per-token", "sum", "per-character", "per-byte"]
"""What the likeliest choice maximises: its log-likelihood in nats per token, in total (`acc` of lm-evaluation-harness),
per character (`acc_norm`) or per byte of UTF-8 (`acc_bytes`)."""

CHOICE_SCORES: tuple[ChoiceScore, ...] = get_args(ChoiceScore)


def check_choice_score(name: str) -> None:
    """Raises `InputError` unless it is one of `CHOICE_SCORES`."""
    if name not in CHOICE_SCORES:
        hint = nearest_hint(name, CHOICE_SCORES)
        raise InputError(f"--choice-score needs one of {', '.join(CHOICE_SCORES)}, not '{name}'{hint}")


def choice_score(kind: ChoiceScore, per_token: float, tokens: int, text: str) -> float:
    """Score of one choice; the choice with the highest is the answer.

    Args:
        kind: the normalisation.
        per_token: mean log-likelihood of its tokens, in nats.
        tokens: number of its tokens.
        text: the choice, at least one character.
    """
    if kind == "per-token":
        return per_token
    total = per_token * tokens
    if kind == "sum":
        return total
    return total / (len(text) if kind == "per-character" else len(text.encode()))
