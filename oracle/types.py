"""The values that flow through the project: sequences in, allocations tried, outcomes out.

Frozen, and nothing heavier than the standard library, so that every package may use them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Allocation", "Outcome", "Proposal", "Sequence"]

Allocation = tuple[int, ...]
"""The layers that run, in order: indices into the model's L decoder blocks."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A prompt with what a good output looks like.

    Attributes:
        id: unique within a data set.
        prompt: the user's text, before any chat template.
        references: the texts an output is compared with; any of them is a right answer.
        choices: for multiple choice, the candidate answers.
        answer: index into `choices` of the right one.
        task: name of the kind of sequence, for breakdowns; may be empty.
    """

    id: str
    prompt: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    task: str = ""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An allocation that a search wants evaluated, and the family it was drawn from."""

    allocation: Allocation
    family: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one evaluation of (sequence, allocation) returned.

    Attributes:
        allocation: the layers that ran for each generated token; in scope `decode` the first token is the full
            model's, since it comes out of the prompt's pass.
        family: where the allocation came from (`full`, `unified`, `early-exit`, `random`).
        tokens: generated token ids, the end-of-sequence token included if it was produced.
        text: the decoded tokens, special tokens left out.
        finished: whether the output ended by itself rather than at the token limit.
        margin: smallest difference between the best and the second-best logit over all steps.
        rerun: whether a near-tie made the engine evaluate it again, alone.
        dropped: whether it was given up unfinished, since it provably cannot meet the criterion any more; it then has
            no quality.
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
