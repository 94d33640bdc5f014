"""Scores of multiple-choice answers: log-likelihoods, by the normalisations and names of lm-evaluation-harness."""

from typing import Literal, get_args

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["CHOICE_SCORES", "ChoiceScore", "choice_score", "choice_score_name"]

ChoiceScore = Literal["acc", "acc_norm", "acc_bytes", "acc_tokens"]
"""What the likeliest choice maximises: its log-likelihood in nats, in total (`acc`), per character (`acc_norm`), per
byte of UTF-8 (`acc_bytes`) or per token (`acc_tokens`). The first three are metrics of lm-evaluation-harness, with its
values; it has none per token. Lengths are those of the choice itself, without the delimiter between prompt and choice,
whose tokens count."""

CHOICE_SCORES: tuple[ChoiceScore, ...] = get_args(ChoiceScore)

EARLIER: dict[str, ChoiceScore] = {
    "sum": "acc",
    "per-character": "acc_norm",
    "per-byte": "acc_bytes",
    "per-token": "acc_tokens",
}
"""Names in runs of earlier versions, still accepted."""


def choice_score_name(name: str) -> ChoiceScore:
    """The name in `CHOICE_SCORES`, also of an earlier one.

    Raises:
        InputError: if it is neither; names the nearest.
    """
    found = EARLIER.get(name, name)
    if found not in CHOICE_SCORES:
        hint = nearest_hint(name, [*CHOICE_SCORES, *EARLIER])
        raise InputError(f"--choice-score needs one of {', '.join(CHOICE_SCORES)}, not '{name}'{hint}")
    return found


def choice_score(kind: ChoiceScore, per_token: float, tokens: int, text: str) -> float:
    """Score of one choice; the choice with the highest is the answer.

    Args:
        kind: the normalisation.
        per_token: mean log-likelihood of its tokens, in nats.
        tokens: number of its tokens.
        text: the choice, at least one character.
    """
    if kind == "acc_tokens":
        return per_token
    total = per_token * tokens
    if kind == "acc":
        return total
    return total / (len(text) if kind == "acc_norm" else len(text.encode()))
