"""Which sequences of a search can tell nothing, found before it runs."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

from analysis.formatting import counted
from oracle.config import SearchConfig
from oracle.engine.prompts import encode_choice
from oracle.metrics import VACUOUS, get_metric, sees, why_vacuous
from oracle.tasks import continuations_of
from oracle.types import Sequence

__all__ = ["scored_tokens", "vacuous", "vacuous_line"]


def scored_tokens(tokenizer: Any, config: SearchConfig, sequences: Seq[Sequence]) -> list[dict[str, int]]:
    """Per sequence, tokens of the longest choice or continuation and reference, where a metric scores them."""
    metrics, kinds = config.asked_metrics, {get_metric(name).kind for name in config.asked_metrics}
    found: list[dict[str, int]] = [{} for _ in sequences]
    for counts, one in zip(found, sequences, strict=True):
        if "choice_accuracy" in metrics and one.choices:
            counts["choice_tokens"] = max(len(encode_choice(tokenizer, one, choice, config)) for choice in one.choices)
        if "continuations" in kinds:
            counts["choice_tokens"] = max(map(len, continuations_of(one)))
        if "log_likelihood" in metrics and one.references:
            texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in one.references]
            counts["reference_tokens"] = max(map(len, texts))
    return found


def vacuous(config: SearchConfig, sequences: Seq[Sequence], scored: Seq[Mapping[str, int]]) -> dict[str, list[str]]:
    """Ids of the sequences whose quality cannot depend on the allocation or be seen, as far as known, by reason.

    Args:
        config: settings of the search.
        sequences: to be searched.
        scored: of `scored_tokens`.
    """
    found: dict[str, list[str]] = {}
    kind = get_metric(config.criterion).kind
    output_tokens = 1 if config.max_new_tokens == 1 else None
    for sequence, counts in zip(sequences, scored, strict=True):
        seen = sees(config.criterion, sequence.references)
        reason = why_vacuous(
            kind,
            config.scope,
            seen=seen,
            output_tokens=output_tokens,
            choice_tokens=counts.get("choice_tokens"),
            reference_tokens=counts.get("reference_tokens"),
        )
        if reason:
            found.setdefault(reason, []).append(sequence.id)
    return found


def vacuous_line(reason: str, count: int, total: int) -> str:
    """What a user is told of them."""
    return f"{count} of {counted(total)} can tell nothing: {VACUOUS[reason]}"
