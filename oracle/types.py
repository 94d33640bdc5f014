"""Shared value types: sequences, allocations, proposals, outcomes. Imports the standard library only.

Names of arrays and tensors end in their shape, such as `hidden_RTD`, in the letters of `SHAPES`; digits are sizes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["SHAPES", "Allocation", "Asked", "Message", "Outcome", "Proposal", "Rendered", "RunPath", "Sequence"]

SHAPES: Mapping[str, str] = {
    "A": "allocations",
    "B": "bootstrap resamples",
    "C": "costs at which a sequence was evaluated, rising",
    "D": "hidden width",
    "E": "evaluations: rows of a run",
    "F": "free units of a search space",
    "G": "rows or nodes gathered for one layer call",
    "H": "query heads",
    "I": "layer executions of a schedule; of states also the one before the first",
    "J": "segments of concave envelopes",
    "K": "key and value heads",
    "L": "layers, or units where an interface counts these as layers",
    "M": "masks to choose from",
    "N": "sequences",
    "O": "nodes of a prefix tree",
    "P": "permutations",
    "Q": "queries per key and value head, or per row",
    "R": "rows processed together",
    "S": "slots of a KV cache",
    "T": "tokens",
    "U": "units: layers or sublayers",
    "V": "vocabulary",
    "W": "width of a head",
    "X": "a local axis, explained in the module's docstring",
    "Y": "another local axis",
}
"""Legend of the shape letters of the whole package."""

RunPath = str | os.PathLike[str]
"""A run: its path, or an `oracle.Run`, an `analysis.Experiment` or an `analysis.Source`, which are path-like."""

Allocation = tuple[int, ...]
"""Indices of the layers that run, in order, into the model's L decoder blocks."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        content: its text.
    """

    role: str
    content: str


Asked = str | tuple[Message, ...]
"""What a model is asked: the user's text, or a conversation whose next turn is the assistant's."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A prompt as the model reads it.

    Attributes:
        text: the text that was tokenised, with what the chat template wrote.
        ids: its token ids, special tokens included.
    """

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A prompt with its references.

    Attributes:
        id: unique within a data set.
        prompt: the user's text, before any chat template; of a conversation its turns as one text.
        references: texts that an output is compared with; each is a right answer.
        choices: candidate answers, for multiple choice.
        answer: index of the right one in `choices`.
        task: task name, for breakdowns; may be empty.
        messages: the conversation that the prompt is, if it has a system turn or a history; otherwise empty.
        rendered: the prompt as the model reads it, fixed once per run; None before that.
        record: what metrics that are no part of this package know of it, as a JSON object: the row of the data, or the
            document of a task with the token ids of its continuations. Empty if no metric asks for it.
    """

    id: str
    prompt: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    task: str = ""
    messages: tuple[Message, ...] = ()
    rendered: Rendered | None = None
    record: str = ""

    @property
    def asked(self) -> Asked:
        """The conversation if there is one, else the prompt."""
        return self.messages or self.prompt


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
