"""Shared value types: sequences, allocations, proposals, outcomes. Imports the standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Allocation", "Outcome", "Proposal", "Sequence"]

Allocation = tuple[int, ...]
"""Indices of the layers that run, in order, into the model's L decoder blocks."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A prompt with its references.

    Attributes:
        id: unique within a data set.
        prompt: the user's text, before any chat template.
        references: texts that an output is compared with; each is a right answer.
        choices: candidate answers, for multiple choice.
        answer: index of the right one in `choices`.
        task: task name, for breakdowns; may be empty.
    """

    id: str
    prompt: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    task: str = ""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An allocation to evaluate, and the family it was drawn from."""

    allocation: Allocation
    family: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one evaluation of (sequence, allocation).

    Attributes:
        allocation: the layers that ran for each generated token; in scope `decode` the first token is the full
            model's, because the prompt pass computes it.
        family: source of the allocation (`full`, `unified`, `early-exit`, `random`).
        tokens: generated token ids, including the end-of-sequence token or the stop text's if one was generated.
        text: the decoded tokens without special tokens, up to the first stop text.
        finished: whether the output ended by itself rather than at the token limit.
        margin: smallest difference between the best and the second-best score over all steps: logits, after the
            processors of `generation_config` if there are any.
        rerun: whether it was evaluated again, alone, because of a near-tie.
        dropped: whether it was dropped unfinished because it provably cannot meet the criterion; it has no quality.
        quality: value per metric, higher is better.
    """

    allocation: Allocation
    family: str
    tokens: tuple[int, ...]
    text: str
    finished: bool
    margin: float
    rerun: bool = False
    dropped: bool = False
    quality: Mapping[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Layer executions per generated token."""
        return len(self.allocation)
