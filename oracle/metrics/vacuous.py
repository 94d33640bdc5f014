"""Sequences whose quality cannot depend on the allocation, or cannot be seen by the metric."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

from oracle.metrics.registry import METRICS
from oracle.metrics.text import score_text

__all__ = ["VACUOUS", "sees", "told_nothing", "why_vacuous"]

VACUOUS = {
    "one token": (
        "what is scored is one token, which in scope decode is the full model's under any allocation; "
        "use --scope decode-last or sequence"
    ),
    "unseen references": (
        "the metric gives 0 even to the reference itself; use --criterion chrf, which compares characters, or agreement"
    ),
    "one score": (
        "the metric gives every output the same score, that of the empty model included; use another --criterion"
    ),
}
"""Reason to what it means and what to use instead."""


def why_vacuous(
    kind: str,
    scope: str,
    *,
    seen: bool = True,
    output_tokens: int | None = None,
    choice_tokens: int | None = None,
    reference_tokens: int | None = None,
    one_score: bool = False,
) -> str:
    """The reason, a key of `VACUOUS`, why no allocation can be told from another; an empty text if some can.

    Args:
        kind: kind of the criterion's metric.
        scope: scope of the run.
        seen: whether the metric sees the references; see `sees`.
        output_tokens: tokens of the full model's output; None if it is not known yet.
        choice_tokens, reference_tokens: tokens of the longest choice (or continuation) and reference; None if unknown.
        one_score: whether different outputs, one of them at the least budget there is, all have the same score.
    """
    passed = {"choice": choice_tokens, "continuations": choice_tokens, "likelihood": reference_tokens}
    scored = passed.get(kind, output_tokens)
    if scope == "decode" and scored == 1:
        return "one token"
    if not seen:
        return "unseen references"
    return "one score" if one_score else ""


def sees(metric: str, references: Seq[str]) -> bool:
    """Whether a text metric gives some reference more than its floor, as ROUGE does not without Latin letters."""
    known = METRICS.get(metric)
    if known is None or known.kind != "text" or known.floor is None or not references:
        return True
    return any(score_text(metric, text, tuple(references)) > known.floor for text in references)


def told_nothing(untold: int, vacuous: Mapping[str, int]) -> str:
    """A sentence on the sequences that tell nothing.

    Args:
        untold: their number.
        vacuous: numbers by reason; on the others the full model scores zero.
    """
    parts = [f"on {count} {VACUOUS.get(reason, reason)}" for reason, count in vacuous.items()]
    if others := untold - sum(vacuous.values()):
        parts.insert(0, f"on {others} the full model scores zero, so that every allocation qualifies")
    return "; ".join(parts)
