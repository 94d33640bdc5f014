"""The metrics by name, with kind, lower bound and description."""

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
        kind: its inputs. `text`: the decoded output and the references (`score_text`). `tokens`: the token ids of the
            output and of the full model's (`agreement`). `likelihood` and `choice`: a pass of the references or the
            choices through the model, computed by the engine.
        floor: lower bound; None if unbounded.
        description: one line for listings, with the unit.
    """

    name: str
    kind: Kind
    floor: float | None
    description: str


_METRICS: tuple[tuple[str, Kind, str], ...] = (
    ("rouge1", "text", "F-measure of shared words (ROUGE-1, no stemming), best reference; 0 to 1"),
    ("rouge2", "text", "F-measure of shared word pairs (ROUGE-2, no stemming), best reference; 0 to 1"),
    (
        "rougeL",
        "text",
        "F-measure of the longest common subsequence of words (ROUGE-L, no stemming), best reference; 0 to 1",
    ),
    ("bleu", "text", "sentence BLEU of sacrebleu with effective order, all references together; 0 to 1"),
    ("chrf", "text", "sentence chrF2 of sacrebleu, best reference; 0 to 1"),
    ("exact_match", "text", "1 if equal to a reference up to case, white space and final punctuation, else 0"),
    ("agreement", "tokens", "share of positions with the full model's token, over the longer output; 0 to 1"),
    ("log_likelihood", "likelihood", "mean log probability of the reference after the prompt, nats/token"),
    ("choice_accuracy", "choice", "1 if the right choice is the likeliest of the choices (by --choice-score), else 0"),
)

METRICS = {
    name: Metric(name=name, kind=kind, floor=None if kind == "likelihood" else 0.0, description=description)
    for name, kind, description in _METRICS
}
"""The metrics by name."""


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: if it is unknown; lists the known ones and the nearest.
    """
    if name in METRICS:
        return METRICS[name]
    raise InputError(f"unknown metric {name!r}: the metrics are {', '.join(METRICS)}{nearest_hint(name, METRICS)}")
