"""The metrics by name: what each compares, and the least value it can take."""

from dataclasses import dataclass
from typing import Literal

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["METRICS", "Kind", "Metric", "get_metric"]

Kind = Literal["text", "tokens", "likelihood", "choice"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of quality; higher is better.

    Attributes:
        name: its key in `METRICS`.
        kind: what it is computed from. `text`: the decoded output and the references
            (`score_text`). `tokens`: the output's token ids and the full model's (`agreement`).
            `likelihood` and `choice` need a pass of the references or the choices through the
            model, so the engine computes them.
        floor: the least value it can take; None if it is unbounded below.
        description: one line for listings, with the unit.
    """

    name: str
    kind: Kind
    floor: float | None
    description: str


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: dict[str, Metric] = _table(
    Metric(
        name="rouge1",
        kind="text",
        floor=0.0,
        description="F-measure of shared words (ROUGE-1, no stemming), best reference; 0 to 1",
    ),
    Metric(
        name="rouge2",
        kind="text",
        floor=0.0,
        description="F-measure of shared word pairs (ROUGE-2, no stemming), best reference; 0 to 1",
    ),
    Metric(
        name="rougeL",
        kind="text",
        floor=0.0,
        description="F-measure of the longest common subsequence of words (ROUGE-L, no stemming), "
        "best reference; 0 to 1",
    ),
    Metric(
        name="bleu",
        kind="text",
        floor=0.0,
        description="sentence BLEU of sacrebleu with effective order, all references together; 0 to 1",
    ),
    Metric(
        name="chrf",
        kind="text",
        floor=0.0,
        description="sentence chrF2 of sacrebleu, best reference; 0 to 1",
    ),
    Metric(
        name="exact_match",
        kind="text",
        floor=0.0,
        description="1 if equal to a reference up to case, white space and final punctuation, else 0",
    ),
    Metric(
        name="agreement",
        kind="tokens",
        floor=0.0,
        description="share of positions with the full model's token, over the longer output; 0 to 1",
    ),
    Metric(
        name="log_likelihood",
        kind="likelihood",
        floor=None,
        description="mean log probability of the reference after the prompt, nats/token",
    ),
    Metric(
        name="choice_accuracy",
        kind="choice",
        floor=0.0,
        description="1 if the right choice is the likeliest of the choices, else 0",
    ),
)


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: no metric has that name; lists the known ones and the nearest.
    """
    if name in METRICS:
        return METRICS[name]
    raise InputError(f"unknown metric {name!r}: the metrics are {', '.join(METRICS)}{nearest_hint(name, METRICS)}")
