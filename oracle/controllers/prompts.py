"""What controllers are given: prompts that were run, and sequences to learn from.

Shapes: P prompt tokens, D hidden width, W windows.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from oracle.engine import Engine, PromptState

if TYPE_CHECKING:
    pass

__all__ = ["Example", "Prompt"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A prompt after one pass at full depth.

    Attributes:
        text: the prompt.
        state: what the pass left behind.
    """

    text: str
    state: PromptState
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, engine: Engine, text: str) -> Self:
        """Runs a prompt."""
        return cls(text=text, state=engine.open(text))

    @property
    def first(self) -> int:
        """The first token of the full model's output, which the pass over the prompt gives."""
        return int(self.state.logits_V.argmax())

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """What was computed of the prompt under this key; several controllers and settings look at the same."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def forgetful(self, engine: Engine) -> "Prompt":
        """The same prompt with what its pass gives, hidden states included, and nothing else: for measuring time.

        It is a prompt of its own, for of equal rows the engine would run one.
        """
        middle = self.once("middle", lambda: self._middle(engine))
        return Prompt(text=self.text, state=replace(self.state), _kept={"middle": middle})

    def windows(self, engine: Engine, count: int) -> Tensor:
        """Means of the full model's states at half depth over so many windows of the prompt, in float32 (W D).

        A prompt that is shorter than that has windows of one token.
        """
        middle_PD = self.once("middle", lambda: self._middle(engine))
        return torch.stack([part.mean(0) for part in middle_PD.tensor_split(min(count, len(middle_PD)))])

    def _middle(self, engine: Engine) -> Tensor:
        units = engine.units.count
        states = engine.hidden.states(self.state, [self.first], tuple(range(units)))
        return states.prompt.after(units // 2).float()


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A sequence to learn from.

    Attributes:
        id: of the sequence.
        prompt: its prompt.
        tokens: the full model's output.
    """

    id: str
    prompt: Prompt
    tokens: tuple[int, ...]
