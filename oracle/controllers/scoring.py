"""The run's criterion metric of a controller's outputs, or of texts that it scores."""

from collections.abc import Sequence as Seq

import numpy as np

from oracle.controllers.base import Controller, Output, Scored
from oracle.controllers.run_context import RunContext
from oracle.metrics import agreement, choice_score, get_metric
from oracle.tasks import continuation_quality, continuations_of, text_quality
from oracle.types import Sequence

__all__ = ["quality_of"]


def quality_of(
    context: RunContext, controller: Controller, sequences: Seq[Sequence], outputs: Seq[Output]
) -> list[Scored]:
    """The run's criterion metric, one value per sequence.

    Args:
        context: the run.
        controller: the controller that generated the outputs; scores texts if the metric is a likelihood or a choice.
        sequences: the sequences to evaluate.
        outputs: one output per sequence.
    """
    kind = get_metric(context.metric).kind
    pairs = list(zip(sequences, outputs, strict=True))
    if kind in ("text", "function"):
        config = context.engine.config
        return [Scored(text_quality(context.metric, output.text, one, config)) for one, output in pairs]
    if kind == "tokens":
        return [Scored(agreement(output.tokens, context.examples[one.id].tokens)) for one, output in pairs]
    if kind == "likelihood":
        tokenizer = context.engine.model.tokenizer
        scored = (
            controller.score(
                [context.examples[one.id].prompt] * len(one.references),
                [tokenizer(text, add_special_tokens=False)["input_ids"] for text in one.references],
            )
            for one in sequences
        )
        return [max(scores, key=lambda score: score.value) for scores in scored]
    if kind == "continuations":
        return [_continued(context, controller, one) for one in sequences]
    return [_answered(context, controller, one) for one in sequences]


def _continued(context: RunContext, controller: Controller, sequence: Sequence) -> Scored:
    """A metric of scored continuations; costs are means over these."""
    ids = continuations_of(sequence)
    scores = controller.score([context.examples[sequence.id].prompt] * len(ids), ids)
    results = [(score.value * len(tokens), score.greedy) for score, tokens in zip(scores, ids, strict=True)]
    value = continuation_quality(context.metric, results, sequence, context.engine.config)
    return Scored(value, *_costs(scores))


def _answered(context: RunContext, controller: Controller, sequence: Sequence) -> Scored:
    """1 if the likeliest choice is the right one, else 0; costs are means over the scored choices."""
    kind = context.engine.config.choice_score
    ids = [context.engine.encode_choice(sequence, choice) for choice in sequence.choices]
    scores = controller.score([context.examples[sequence.id].prompt] * len(ids), ids)
    values = [
        choice_score(kind, score.value, len(tokens), choice)
        for choice, score, tokens in zip(sequence.choices, scores, ids, strict=True)
    ]
    chosen = int(np.argmax(values))
    return Scored(float(chosen == sequence.answer), *_costs(scores))


def _costs(scores: Seq[Scored]) -> tuple[float | None, float | None]:
    """Mean cost and FLOPs of scored texts."""
    return _mean([score.cost for score in scores]), _mean([score.flops for score in scores])


def _mean(values: Seq[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
