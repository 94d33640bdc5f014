"""Outcomes with their qualities: generation, text metrics, and metrics that need a pass through the model."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from oracle.engine.engine import Engine
from oracle.engine.prompts import PromptState
from oracle.errors import InputError
from oracle.quality import agreement, score_texts
from oracle.types import Allocation, Outcome, Proposal, Sequence

__all__ = ["Evaluator"]


@dataclass(frozen=True, kw_only=True)
class _Open:
    sequence: Sequence
    prompt: PromptState
    full_tokens: tuple[int, ...]


class Evaluator:
    """Evaluates the allocations of one sequence after another.

    Args:
        engine: runs the model.
        metrics: metrics to compute that need a pass through the model.
        shuffled: for each sequence id another sequence, whose references the likelihood is also taken of, so that
            luck can be measured without the model.
    """

    def __init__(self, engine: Engine, *, metrics: Seq[str], shuffled: Mapping[str, Sequence]) -> None:
        self.engine = engine
        self.metrics = tuple(metrics)
        self.shuffled = shuffled
        self._current: _Open | None = None

    def evaluate(self, sequence: Sequence, proposals: Seq[Proposal]) -> list[Outcome]:
        """Outcomes of some allocations, in the order of the proposals, each with every metric."""
        current = self._open(sequence)
        allocations = [proposal.allocation for proposal in proposals]
        generations = self.engine.generate([(current.prompt, allocation) for allocation in allocations])
        passes = self._passes(current, allocations)
        return [
            Outcome(
                allocation=proposal.allocation,
                family=proposal.family,
                tokens=generation.tokens,
                text=(text := self.engine.model.text(generation.tokens)),
                finished=generation.finished,
                margin=generation.margin,
                rerun=rerun,
                quality={
                    **(score_texts(text, sequence.references) if sequence.references else {}),
                    "agreement": agreement(generation.tokens, current.full_tokens),
                    **{name: values[index] for name, values in passes.items()},
                },
            )
            for index, (proposal, (generation, rerun)) in enumerate(zip(proposals, generations, strict=True))
        ]

    def _open(self, sequence: Sequence) -> _Open:
        """The sequence's prompt state and full-depth output, computed once."""
        if self._current is None or self._current.sequence != sequence:
            prompt = self.engine.open(sequence.prompt)
            every_layer = tuple(range(self.engine.model.layers))
            [(generation, _)] = self.engine.generate([(prompt, every_layer)])
            self._current = _Open(sequence=sequence, prompt=prompt, full_tokens=generation.tokens)
        return self._current

    def _passes(self, current: _Open, allocations: Seq[Allocation]) -> dict[str, list[float]]:
        """Values of the metrics that need a pass through the model, one list entry an allocation."""
        columns: dict[str, list[float]] = {}
        if "log_likelihood" in self.metrics:
            other = self.shuffled[current.sequence.id].references
            columns["log_likelihood"] = self._best(current, allocations, current.sequence.references)
            columns["null_log_likelihood"] = self._best(current, allocations, other)
        if "choice_accuracy" in self.metrics:
            scores = [self._score(current, allocations, choice) for choice in current.sequence.choices]
            chosen = np.argmax(scores, axis=0)
            columns["choice"] = chosen.astype(float).tolist()
            columns["choice_accuracy"] = (chosen == current.sequence.answer).astype(float).tolist()
        return columns

    def _best(self, current: _Open, allocations: Seq[Allocation], texts: Seq[str]) -> list[float]:
        """Per allocation the highest likelihood over the given texts."""
        return np.max([self._score(current, allocations, text) for text in texts], axis=0).tolist()

    def _score(self, current: _Open, allocations: Seq[Allocation], text: str) -> list[float]:
        ids = self.engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"a reference of sequence '{current.sequence.id}' has no tokens; remove it")
        return self.engine.log_likelihoods(current.prompt, allocations, ids)
