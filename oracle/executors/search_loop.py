"""The loop ask -> evaluate -> tell over several sequences together, until their limits are reached."""

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from math import comb
from typing import Protocol

from oracle.config import SearchConfig
from oracle.search import Archive, Hints, Memory, Problem, Space, Strategy, make
from oracle.types import Allocation, Outcome, Proposal, Sequence

__all__ = ["EvaluatorProtocol", "Numbered", "SequenceSearch", "open_search", "search_together"]

ASK = 64
"""Proposals requested from a strategy at a time. Fixed, so that a strategy's results do not depend on the batch size;
small, so that a batch holds proposals of several sequences."""

GUIDED = {"auto", "dp", "influence"}
"""Strategies that use the model's hidden states."""


class EvaluatorProtocol(Protocol):
    """The engine interface that the loop requires."""

    def evaluate(
        self, work: Seq[tuple[Sequence, Seq[Proposal]]], least: Mapping[str, float] | None = None
    ) -> list[list[Outcome]]:
        """Outcomes per sequence and proposal; outputs that cannot reach the quality in `least` may be dropped."""

    def structure(self, sequence: Sequence, space: Space) -> tuple[tuple[float, ...], Mapping[float, tuple[int, ...]]]:
        """Block influence per unit, and masks from dynamic programming by cost."""

    def exhaust(self, sequence: Sequence, count: int, space: Space) -> list[Outcome]:
        """Outcomes of those masks of `count` free units that reproduce the full model's output."""


Numbered = list[tuple[int, Outcome]]
"""Outcomes with their numbers within the sequence."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Search limits per sequence."""

    evaluations: int
    seconds: float
    executions: float

    @classmethod
    def of(cls, config: SearchConfig) -> "Limits":
        """The limits of a config."""
        return cls(
            evaluations=config.evaluations,
            seconds=config.seconds or float("inf"),
            executions=config.layer_executions or float("inf"),
        )


@dataclass(kw_only=True)
class SequenceSearch:
    """State of one sequence's search.

    Attributes:
        sequence: the sequence.
        problem: the search space and the archive of outcomes.
        limits: maximum evaluations, seconds and layer executions.
        prompt_tokens: number of prompt tokens that allocations run; 0 except in scope `sequence`.
        study: name of its study in the storage of optuna's studies; None without storage.
        first: number of its first outcome.
        known: outcomes of this search before it was interrupted, by allocation; reused instead of evaluated again.
        taken: their numbers.
        strategy: the strategy; None until the full model has been evaluated.
        spent: evaluations so far.
        spent_seconds: its share of the time so far.
        spent_executions: layer x token units so far, counted as if every output had been decoded alone.
    """

    sequence: Sequence
    problem: Problem
    limits: Limits
    prompt_tokens: int
    study: str | None = None
    first: int = 0
    known: Mapping[Allocation, Outcome] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    strategy: Strategy | None = None
    spent: int = 0
    spent_seconds: float = 0.0
    spent_executions: int = 0

    @property
    def archive(self) -> Archive:
        """All outcomes of the sequence, with its bounds."""
        return self.problem.archive

    def ask(self, count: int) -> list[Proposal]:
        """The next proposals: the full model first; none once a limit is reached or the strategy is done."""
        if self.strategy is None:
            return [Proposal(allocation=self.problem.space.full, family="full")]
        room = min(count, self.limits.evaluations - self.spent)
        spent = self.spent_seconds >= self.limits.seconds or self.spent_executions >= self.limits.executions
        return [] if room < 1 or spent or self.strategy.done else self.strategy.ask(room)

    def tell(self, outcomes: Seq[Outcome], seconds: float) -> Numbered:
        """Adds outcomes and the time they took; returns the new ones."""
        if self.strategy is None:
            self.archive.add(outcomes)
        else:
            self.strategy.tell(outcomes)
        self.spent_seconds += seconds
        self.spent_executions += sum(
            outcome.cost * (self.prompt_tokens + len(outcome.tokens) - 1) for outcome in outcomes
        )
        return self.number(outcomes)

    def number(self, outcomes: Seq[Outcome]) -> Numbered:
        """Counts outcomes; returns the new ones with their numbers."""
        new: Numbered = []
        for outcome in outcomes:
            if outcome.allocation not in self.known:
                number = self.first + self.spent
                # Under a time limit the interrupted search may have proposed other allocations.
                number = max(self.taken) + 1 if number in self.taken else number
                self.taken.add(number)
                new.append((number, outcome))
            self.spent += 1
        return new


def open_search(
    sequence: Sequence,
    space: Space,
    config: SearchConfig,
    *,
    seed: int,
    memory: Memory,
    prompt_tokens: int = 0,
    study: str | None = None,
) -> SequenceSearch:
    """A new search of one sequence."""
    archive = Archive(space, config.criterion, config.tolerance)
    problem = Problem(space=space, archive=archive, seed=seed, memory=memory)
    return SequenceSearch(
        sequence=sequence,
        problem=problem,
        limits=Limits.of(config),
        prompt_tokens=prompt_tokens if config.scope == "sequence" else 0,
        study=study,
    )


def search_together(
    evaluator: EvaluatorProtocol, searches: Seq[SequenceSearch], config: SearchConfig
) -> Iterator[list[tuple[SequenceSearch, Numbered]]]:
    """Searches sequences together; yields the new outcomes of each round per search (a list that may be empty).

    A search whose archive holds the full model's outcome starts from it.
    """
    for search in searches:
        if search.archive.full is not None:
            _begin(evaluator, search, config)
    while True:
        began = time.monotonic()
        asked = [(search, proposals) for search in searches if (proposals := search.ask(ASK))]
        if not asked:
            break
        results = _evaluate(evaluator, asked, prune=config.prune)
        seconds = (time.monotonic() - began) / len(asked)
        found = []
        for (search, _), outcomes in zip(asked, results, strict=True):
            found.append((search, search.tell(outcomes, seconds)))
            if search.strategy is None:
                _begin(evaluator, search, config)
        yield found
    if config.criterion == "agreement" and config.tolerance == 0:
        for search in searches:
            yield [(search, search.number(_prove(evaluator, search, config.prove)))]


def _evaluate(
    evaluator: EvaluatorProtocol, asked: Seq[tuple[SequenceSearch, Seq[Proposal]]], *, prune: bool
) -> list[list[Outcome]]:
    """Outcomes of the proposals, reused from `known` where possible."""
    new = [(search, [one for one in proposals if one.allocation not in search.known]) for search, proposals in asked]
    work = [(search, proposals) for search, proposals in new if proposals]
    least = {search.sequence.id: search.archive.least for search, _ in work} if prune else {}
    results = evaluator.evaluate(
        [(search.sequence, proposals) for search, proposals in work],
        {name: quality for name, quality in least.items() if quality is not None},
    )
    fresh = {
        (search.sequence.id, outcome.allocation): outcome
        for (search, _), outcomes in zip(work, results, strict=True)
        for outcome in outcomes
    }
    return [
        [search.known.get(one.allocation) or fresh[search.sequence.id, one.allocation] for one in proposals]
        for search, proposals in asked
    ]


def _begin(evaluator: EvaluatorProtocol, search: SequenceSearch, config: SearchConfig) -> None:
    """Creates the strategy, with hints from the full model's hidden states if it uses them."""
    problem = search.problem
    if config.strategy in GUIDED:
        influence, masks = evaluator.structure(search.sequence, problem.space)
        problem.hints = Hints(influence=influence, masks=masks)
    stored = {"storage": config.study, "study": search.study} if config.study else {}
    search.strategy = make(config.strategy, problem, **stored)


def _prove(evaluator: EvaluatorProtocol, search: SequenceSearch, masks: int) -> list[Outcome]:
    """Tests whole budgets without decoding (same-output criterion) to raise the lower bound; returns new outcomes."""
    archive, found = search.archive, list[Outcome]()
    free = len(archive.space.free)
    for count in range(free + 1):
        if archive.certified or (masks := masks - comb(free, count)) < 0:
            break
        if not archive.exhausted(count):
            outcomes = evaluator.exhaust(search.sequence, count, archive.space)
            found += [outcome for outcome in outcomes if outcome.allocation not in archive]
            archive.add(outcomes)
            archive.exhaust(count)
    return found
