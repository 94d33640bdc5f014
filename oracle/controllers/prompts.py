"""Prompts after their full-depth pass, and training examples. In shapes, X is the windows of a prompt."""

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from oracle.engine import Engine, PromptState
from oracle.types import Sequence

__all__ = ["Example", "Prompt", "digest"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A prompt after one pass at full depth.

    Attributes:
        text: the user's text.
        state: keys, values and last logits of the pass.
    """

    text: str
    state: PromptState
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, engine: Engine, prompt: str | Sequence) -> Self:
        """Runs a prompt; that of a stored sequence as it was rendered for its run."""
        return cls(text=prompt if isinstance(prompt, str) else prompt.prompt, state=engine.open(prompt))

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids."""
        return tuple(self.state.tokens.tolist())

    @property
    def first(self) -> int:
        """First token of the full model's output, from the prompt's pass."""
        return int(self.state.logits_V.argmax()) if self.state.first is None else self.state.first

    def cached(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The cached result under this key, shared between controllers and settings."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def timing_copy(self, engine: Engine) -> "Prompt":
        """A copy for timing that keeps the results of the prompt's pass, hidden states included, and no others.

        Its state is a separate object because the engine runs identical rows once.
        """
        middle = self.cached("middle", lambda: self._middle(engine))
        kept: dict[Hashable, Any] = {
            key: value for key, value in self._cache.items() if isinstance(key, tuple) and key[0] == "windows"
        }
        return Prompt(text=self.text, state=replace(self.state), _cache={"middle": middle, **kept})

    def windows(self, engine: Engine, count: int) -> Tensor:
        """Mean hidden state of the full model at half depth, per window of the prompt, in float32 (W D).

        A prompt of fewer than `count` tokens has windows of one token.
        """
        middle_TD = self.cached("middle", lambda: self._middle(engine))
        return torch.stack([part.mean(0) for part in middle_TD.tensor_split(min(count, len(middle_TD)))])

    def layer_windows(self, engine: Engine, count: int) -> Tensor:
        """Mean hidden state of the full model before each unit, per window of the prompt, in float32 (U X D)."""

        def compute() -> Tensor:
            units = engine.units.count
            states = engine.hidden.states(self.state, [self.first], tuple(range(units)))
            parts = states.prompt.every()[:-1].float().tensor_split(min(count, self.state.length), dim=1)
            return torch.stack([part.mean(1) for part in parts], dim=1)

        return self.cached(("windows", count), compute)

    def _middle(self, engine: Engine) -> Tensor:
        units = engine.units.count
        states = engine.hidden.states(self.state, [self.first], tuple(range(units)))
        return states.prompt.after(units // 2).float()


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A training sequence.

    Attributes:
        id: id of the sequence.
        prompt: its prompt.
        tokens: the full model's output.
    """

    id: str
    prompt: Prompt
    tokens: tuple[int, ...]


def digest(text: str) -> int:
    """A number of 64 bits that identifies a text, to seed what is drawn for it."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
