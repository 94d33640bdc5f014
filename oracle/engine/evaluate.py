"""Outcomes with their qualities: generation, text metrics, and metrics that need a pass through the model."""

import json
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from oracle.engine.decode import Generation
from oracle.engine.engine import Engine
from oracle.engine.layer_importance import HiddenStates
from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Mask
from oracle.errors import InputError
from oracle.metrics import (
    Bound,
    agreement,
    answer_in,
    bound_for,
    choice_score,
    function_bound,
    get_metric,
    score_texts,
)
from oracle.tasks import continuation_quality, continuations_of, text_quality
from oracle.types import Allocation, Outcome, Proposal, Sequence

__all__ = ["Evaluator"]


@dataclass(kw_only=True)
class _Open:
    sequence: Sequence
    prompt: PromptState
    full_tokens: tuple[int, ...] | None = None
    choices: list[list[int]] = field(default_factory=list)


class Evaluator:
    """Evaluates allocations of several sequences at a time.

    Args:
        engine: runs the model.
        metrics: metrics to compute besides those of every output.
        shuffled: for each sequence id another sequence, by which metrics whose values against others are stored are
            also computed, so that luck can be measured without the model.
    """

    def __init__(self, engine: Engine, *, metrics: Seq[str], shuffled: Mapping[str, Sequence]) -> None:
        self.engine = engine
        self.metrics = tuple(metrics)
        self.shuffled = shuffled
        self._opened: dict[str, _Open] = {}
        self._full: dict[str, tuple[int, ...]] = {}

    def evaluate(
        self, work: Seq[tuple[Sequence, Seq[Proposal]]], least: Mapping[str, float] | None = None
    ) -> list[list[Outcome]]:
        """Outcomes of some allocations of each sequence, in the order of the proposals, each with every metric.

        What is computed once per sequence is kept until it is closed.

        Args:
            work: sequences with what is proposed for them.
            least: by sequence id the least quality that qualifies under the criterion. An output that cannot reach it
                any more is dropped unfinished, says so, and has no quality. The full model's must be known.
        """
        opened = [self._open(sequence) for sequence, _ in work]
        requests = [
            (current.prompt, proposal.allocation)
            for current, (_, proposals) in zip(opened, work, strict=True)
            for proposal in proposals
        ]
        results = iter(self.engine.generate(requests, self._thresholds(opened, work, least or {})))
        return [
            self._outcomes(current, proposals, list(islice(results, len(proposals))))
            for current, (_, proposals) in zip(opened, work, strict=True)
        ]

    def _thresholds(
        self, opened: Seq[_Open], work: Seq[tuple[Sequence, Seq[Proposal]]], least: Mapping[str, float]
    ) -> list[tuple[Bound, float]] | None:
        """A bound and the least quality for each request, if the criterion has bounds."""
        if not least:
            return None
        thresholds: list[tuple[Bound, float]] = []
        for current, (sequence, proposals) in zip(opened, work, strict=True):
            bound = self._bound(sequence, current.full_tokens or ())
            if bound is None:
                return None
            wanted = least.get(sequence.id, -float("inf"))
            thresholds += [(bound, wanted)] * len(proposals)
        return thresholds

    def _bound(self, sequence: Sequence, full_tokens: tuple[int, ...]) -> Bound | None:
        """The bound of the criterion on the outputs of a sequence, if it has one."""
        criterion = self.engine.config.criterion
        if get_metric(criterion).foreign:
            return function_bound(criterion, sequence.references, json.loads(sequence.record or "{}"))
        return bound_for(criterion, sequence.references, full_tokens, self.engine.model.words_per_token)

    def hidden_states(self, sequence: Sequence) -> HiddenStates:
        """The full model's hidden states on its own output; the sequence must have been evaluated."""
        current = self._open(sequence)
        tokens = self._full_tokens(current, (), ())
        return HiddenStates(self.engine, current.prompt, tokens)

    def reproduces(self, sequence: Sequence, runs_AU: Mask) -> list[Outcome]:
        """Of some skip masks those that give the full model's output, evaluated; the others are not decoded.

        Args:
            sequence: must have been evaluated.
            runs_AU: the masks (A U), neighbours in lexicographic order.
        """
        current = self._open(sequence)
        tokens = self._full_tokens(current, (), ())
        proposals = [
            Proposal(allocation=tuple(np.flatnonzero(runs_AU[rows.start + row]).tolist()), family="proof")
            for rows, answers in self.engine.reproduces(current.prompt, runs_AU, tokens)
            for row in np.flatnonzero(answers).tolist()
        ]
        return self.evaluate([(sequence, proposals)])[0] if proposals else []

    def set_full_output(self, sequence: Sequence, tokens: tuple[int, ...]) -> None:
        """Takes the full model's output on a sequence from elsewhere, so that it is not computed again."""
        self._full[sequence.id] = tokens

    def close(self, sequence: Sequence) -> None:
        """Releases the state kept for a sequence."""
        self._full.pop(sequence.id, None)
        self._opened.pop(sequence.id, None)

    def _open(self, sequence: Sequence) -> _Open:
        if sequence.id not in self._opened:
            self._opened[sequence.id] = _Open(
                sequence=sequence,
                prompt=self.engine.open(sequence),
                full_tokens=self._full.get(sequence.id),
            )
        return self._opened[sequence.id]

    def _outcomes(
        self, current: _Open, proposals: Seq[Proposal], results: Seq[tuple[Generation, bool]]
    ) -> list[Outcome]:
        whole = [p.allocation for p, (generation, _) in zip(proposals, results, strict=True) if not generation.dropped]
        passes = {name: iter(values) for name, values in self._passes(current, whole).items()} if whole else {}
        full_tokens = self._full_tokens(current, proposals, results)
        outcomes = []
        for proposal, (generation, rerun) in zip(proposals, results, strict=True):
            text = self.engine.text(generation.tokens)
            quality: dict[str, float] = {}
            if not generation.dropped:
                if current.sequence.references:
                    answer = answer_in(text, self.engine.config.extract)
                    quality |= score_texts(answer, current.sequence.references)
                quality["agreement"] = agreement(generation.tokens, full_tokens)
                quality |= self._asked(current.sequence, text)
                quality |= {name: next(values) for name, values in passes.items()}
            outcomes.append(
                Outcome(
                    allocation=proposal.allocation,
                    family=proposal.family,
                    tokens=generation.tokens,
                    text=text,
                    finished=generation.finished,
                    margin=generation.margin,
                    rerun=rerun,
                    dropped=generation.dropped,
                    quality=quality,
                )
            )
        return outcomes

    def _asked(self, sequence: Sequence, text: str) -> dict[str, float]:
        """Values of the metrics of an output that are computed on request."""
        found: dict[str, float] = {}
        for metric in map(get_metric, self.metrics):
            if metric.kind in ("text", "function"):
                found[metric.name] = text_quality(metric.name, text, sequence, self.engine.config)
            if metric.kind == "function":
                other = self.shuffled[sequence.id]
                found[metric.columns[1]] = text_quality(metric.name, text, other, self.engine.config)
        return found

    def _full_tokens(
        self, current: _Open, proposals: Seq[Proposal], results: Seq[tuple[Generation, bool]]
    ) -> tuple[int, ...]:
        """The full model's output, out of the first results that hold it."""
        if current.full_tokens is None:
            every_layer = tuple(range(self.engine.units.count))
            found = [r for p, (r, _) in zip(proposals, results, strict=True) if p.allocation == every_layer]
            generation = found[0] if found else self.engine.generate([(current.prompt, every_layer)])[0][0]
            current.full_tokens = generation.tokens
        return current.full_tokens

    def _passes(self, current: _Open, allocations: Seq[Allocation]) -> dict[str, list[float]]:
        """Values of the metrics that need a pass through the model, one list entry an allocation."""
        columns: dict[str, list[float]] = {}
        if "log_likelihood" in self.metrics:
            other = self.shuffled[current.sequence.id].references
            columns["log_likelihood"] = self._best(current, allocations, current.sequence.references)
            columns["null_log_likelihood"] = self._best(current, allocations, other)
        if "choice_accuracy" in self.metrics:
            current.choices = current.choices or [
                self.engine.encode_choice(current.sequence, choice) for choice in current.sequence.choices
            ]
            scores = [
                self._choice(current, allocations, choice, ids)
                for choice, ids in zip(current.sequence.choices, current.choices, strict=True)
            ]
            chosen = np.argmax(scores, axis=0)
            columns["choice"] = chosen.astype(float).tolist()
            columns["choice_accuracy"] = (chosen == current.sequence.answer).astype(float).tolist()
        names = [name for name in self.metrics if get_metric(name).kind == "continuations"]
        if names:
            columns |= self._continuations(current, allocations, names)
        return columns

    def _continuations(self, current: _Open, allocations: Seq[Allocation], names: Seq[str]) -> dict[str, list[float]]:
        """Values of the metrics of kind `continuations`, and those against another sequence."""
        sequence, config = current.sequence, self.engine.config
        other = self.shuffled[sequence.id]
        results = self._results(current, allocations, continuations_of(sequence))
        by_luck = results
        if (theirs := continuations_of(sequence, other)) != continuations_of(sequence):
            by_luck = self._results(current, allocations, theirs)
        columns: dict[str, list[float]] = {}
        for metric in map(get_metric, names):
            columns[metric.name] = [continuation_quality(metric.name, one, sequence, config) for one in results]
            columns[metric.columns[1]] = [
                continuation_quality(metric.name, one, sequence, config, other=other) for one in by_luck
            ]
        return columns

    def _results(
        self, current: _Open, allocations: Seq[Allocation], continuations: Seq[Seq[int]]
    ) -> list[list[tuple[float, bool]]]:
        """Per allocation and continuation, the log-likelihood in nats and whether it is the greedy output."""
        scores = [self.engine.scores(current.prompt, allocations, ids) for ids in continuations]
        return [
            [(one.mean * len(ids), one.greedy) for one, ids in zip(row, continuations, strict=True)]
            for row in zip(*scores, strict=True)
        ]

    def _best(self, current: _Open, allocations: Seq[Allocation], texts: Seq[str]) -> list[float]:
        """Per allocation the highest likelihood over the given texts."""
        return np.max([self._score(current, allocations, text) for text in texts], axis=0).tolist()

    def _choice(self, current: _Open, allocations: Seq[Allocation], choice: str, ids: Seq[int]) -> list[float]:
        """Per allocation the score by which a choice is compared with the others."""
        values = self.engine.log_likelihoods(current.prompt, allocations, ids)
        return [choice_score(self.engine.config.choice_score, value, len(ids), choice) for value in values]

    def _ids(self, current: _Open, text: str) -> list[int]:
        ids = self.engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"a reference of sequence '{current.sequence.id}' has no tokens; remove it")
        return list(ids)

    def _score(self, current: _Open, allocations: Seq[Allocation], text: str) -> list[float]:
        ids = self._ids(current, text)
        return self.engine.log_likelihoods(current.prompt, allocations, ids)
