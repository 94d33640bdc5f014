"""The loop ask -> evaluate -> tell, over several sequences side by side, until their budgets of effort are spent."""

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from math import comb
from typing import Protocol

from oracle.config import SearchConfig
from oracle.search import Archive, Hints, Memory, Problem, Space, Strategy, make
from oracle.types import Allocation, Outcome, Proposal, Sequence

__all__ = ["Evaluates", "Numbered", "SequenceSearch", "open_search", "search_together"]


ASK = 64
"""Proposals asked of a strategy at a time: a batch has room for those of several sequences, and what a strategy learns
does not depend on how large batches are."""

GUIDED = {"auto", "dp", "influence"}
"""Strategies that read the model's hidden states."""


class Evaluates(Protocol):
    """What the loop needs of the engine."""

    def evaluate(
        self, work: Seq[tuple[Sequence, Seq[Proposal]]], least: Mapping[str, float] | None = None
    ) -> list[list[Outcome]]:
        """Outcomes of some allocations of each sequence; outputs that cannot reach `least` may be dropped."""

    def structure(self, sequence: Sequence, space: Space) -> tuple[tuple[float, ...], Mapping[float, tuple[int, ...]]]:
        """Block influence of each unit, and the masks of dynamic programming by cost."""

    def exhaust(self, sequence: Sequence, count: int, space: Space) -> list[Outcome]:
        """Of all masks of so many free units those that give the full model's output."""


Numbered = list[tuple[int, Outcome]]
"""Outcomes with their numbers within the sequence, by which they are stored."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Effort per sequence."""

    evaluations: int
    seconds: float
    executions: float

    @classmethod
    def of(cls, config: SearchConfig) -> "Limits":
        """The limits that a config sets."""
        return cls(
            evaluations=config.evaluations,
            seconds=config.seconds or float("inf"),
            executions=config.layer_executions or float("inf"),
        )


@dataclass(kw_only=True)
class SequenceSearch:
    """One sequence's search on its way.

    Attributes:
        sequence: what is searched.
        problem: the space, and the archive of what is known.
        limits: evaluations, seconds and layer executions that may be spent.
        prompt_tokens: length of the prompt, as far as allocations run it (scope `sequence`).
        first: number of its first outcome.
        known: by allocation, outcomes of this search before it was interrupted: taken instead of being evaluated again.
        taken: their numbers.
        strategy: proposes, once the full model's outcome is known.
        spent: evaluations so far.
        spent_seconds: its share of the time so far.
        spent_executions: layer x token units so far, as if every output had been decoded alone.
    """

    sequence: Sequence
    problem: Problem
    limits: Limits
    prompt_tokens: int
    first: int = 0
    known: Mapping[Allocation, Outcome] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    strategy: Strategy | None = None
    spent: int = 0
    spent_seconds: float = 0.0
    spent_executions: int = 0

    @property
    def archive(self) -> Archive:
        """What is known of the sequence."""
        return self.problem.archive

    def ask(self, count: int) -> list[Proposal]:
        """What to evaluate next: the full model first; nothing once the effort is spent or the strategy is done."""
        if self.strategy is None:
            return [Proposal(allocation=self.problem.space.full, family="full")]
        room = min(count, self.limits.evaluations - self.spent)
        spent = self.spent_seconds >= self.limits.seconds or self.spent_executions >= self.limits.executions
        return [] if room < 1 or spent or self.strategy.done else self.strategy.ask(room)

    def tell(self, outcomes: Seq[Outcome], seconds: float) -> Numbered:
        """Takes in what came back, and the time that it took; returns what is new."""
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
        """Counts outcomes; returns the new ones, with the numbers by which they are stored."""
        new: Numbered = []
        for outcome in outcomes:
            if outcome.allocation not in self.known:
                number = self.first + self.spent
                # Under a limit of time an interrupted search may have been elsewhere by now.
                number = max(self.taken) + 1 if number in self.taken else number
                self.taken.add(number)
                new.append((number, outcome))
            self.spent += 1
        return new


def open_search(
    sequence: Sequence, space: Space, config: SearchConfig, *, seed: int, memory: Memory, prompt_tokens: int = 0
) -> SequenceSearch:
    """A search that has not begun."""
    archive = Archive(space, config.criterion, config.tolerance)
    problem = Problem(space=space, archive=archive, seed=seed, memory=memory)
    return SequenceSearch(
        sequence=sequence,
        problem=problem,
        limits=Limits.of(config),
        prompt_tokens=prompt_tokens if config.scope == "sequence" else 0,
    )


def search_together(
    evaluator: Evaluates, searches: Seq[SequenceSearch], config: SearchConfig
) -> Iterator[list[tuple[SequenceSearch, Numbered]]]:
    """Searches some sequences side by side; yields each round's new outcomes, and an empty list where there are none.

    A search whose archive knows the full model's outcome goes on from there.
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
    evaluator: Evaluates, asked: Seq[tuple[SequenceSearch, Seq[Proposal]]], *, prune: bool
) -> list[list[Outcome]]:
    """What was asked, out of what is known and from the evaluator."""
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


def _begin(evaluator: Evaluates, search: SequenceSearch, config: SearchConfig) -> None:
    """Starts the strategy, with what the full model's hidden states say if it has a use for it."""
    problem = search.problem
    if config.strategy in GUIDED:
        influence, masks = evaluator.structure(search.sequence, problem.space)
        problem.hints = Hints(influence=influence, masks=masks)
    stored = {"storage": config.study, "study": search.sequence.id} if config.study else {}
    search.strategy = make(config.strategy, problem, **stored)


def _prove(evaluator: Evaluates, search: SequenceSearch, masks: int) -> list[Outcome]:
    """Raises the lower bound under the same-output criterion: whole budgets are tested without decoding.

    Returns the outcomes that this adds.
    """
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
