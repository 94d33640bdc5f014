"""KV cache for batches in which every row runs its own layers.

A batch runs steps: layer executions, in order. Each step has its own buffers, so a layer that a row runs twice keeps
two histories.
"""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

__all__ = ["FilledCache", "PassCache", "PromptCache", "RowCache", "States"]

States = tuple[Tensor, Tensor]
"""Keys and values (each G K S W)."""

PromptCache = list[States]
"""Full-depth keys and values of one prompt (each 1 K P W), per layer."""


class RowCache(Cache):
    """A cache in which each step holds only the entries that run it.

    The library's decoder layers call `update` as on their own cache; masks are built from `get_mask_sizes`. Entries
    are right-aligned: a shorter history leaves its first slots empty and masked.

    Prompts are either copied into the slots (`fill_prompts`) or shared by reference: then the first `prompt_slots`
    slots are virtual, and the attention of `oracle.models.attention` reads the prompts from `shared`.

    Args:
        steps: number of steps.
        slots: capacity in tokens.
        prompt_slots: number of virtual slots: length of the longest shared prompt.

    Attributes:
        step: step that `update` applies to; set by the caller before it runs a layer.
        shared: per step, its entries in order as (number of entries, states of their common prompt).
        attended: number of layer executions that attended to shared prompts.
    """

    def __init__(self, steps: int, slots: int, *, prompt_slots: int = 0) -> None:
        super().__init__(layers=[])
        self.steps = steps
        self.slots = slots
        self.prompt_slots = prompt_slots
        self.shared: list[list[tuple[int, States]]] = [[] for _ in range(steps)]
        self.step = 0
        self.own = 0
        self.attended = 0
        self._keys: list[Tensor | None] = [None] * steps
        self._values: list[Tensor | None] = [None] * steps

    @property
    def length(self) -> int:
        """Number of filled slots, including virtual and masked ones; `own` of them are stored here."""
        return self.prompt_slots + self.own

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """Appends new states (G K T W) to the current step and returns all of its own states so far."""
        end = self.own + key_states.shape[2]
        kept = []
        for store, states in ((self._keys, key_states), (self._values, value_states)):
            buffer = store[self.step]
            if buffer is None:
                buffer = store[self.step] = self._allocate(states.shape[0], states)
            buffer[:, :, self.own : end] = states
            kept.append(buffer[:, :, :end])
        return kept[0], kept[1]

    def shared_now(self) -> list[tuple[int, States]]:
        """The shared prompts of the current step."""
        return self.shared[self.step]

    def _allocate(self, entries: int, like: Tensor) -> Tensor:
        # Empty slots must be finite: a mask does not hide NaN.
        return like.new_zeros((entries, like.shape[1], self.slots, like.shape[3]))

    def advance(self, tokens: int) -> None:
        """Marks `tokens` more slots as filled, in every step."""
        self.own += tokens

    def fill_prompts(self, step: int, prompts: Seq[States], width: int) -> None:
        """Copies prompt states into the entries of one step, right-aligned in the first `width` slots."""
        for store, part in ((self._keys, 0), (self._values, 1)):
            buffer = self._allocate(len(prompts), prompts[0][part])
            for entry, states in enumerate(prompts):
                buffer[entry, :, width - states[part].shape[2] : width] = states[part][0]
            store[step] = buffer

    def take(
        self, step: int, sources: Seq[tuple["RowCache", NDArray[np.int64], NDArray[np.int64]]], entries: int
    ) -> None:
        """Fills one step with entries of other caches, right-aligned before this cache's `own` slots.

        Args:
            step: the step, the same in every cache.
            sources: (cache, its entries to copy, their indices in this cache).
            entries: G, the total number of entries.
        """
        for store, name in ((self._keys, "_keys"), (self._values, "_values")):
            buffer: Tensor | None = None
            for cache, taken, places in sources:
                theirs = getattr(cache, name)[step]
                if theirs is None:
                    continue
                same_shape = (entries, cache.own, cache.slots) == (len(theirs), self.own, self.slots)
                if same_shape and np.array_equal(taken, np.arange(entries)):
                    buffer = theirs  # unchanged: reuse without copying
                    break
                buffer = self._allocate(entries, theirs) if buffer is None else buffer
                count = min(cache.own, self.own)
                window = theirs[:, :, cache.own - count : cache.own]
                chosen, targets = (torch.from_numpy(part).to(theirs.device) for part in (taken, places))
                buffer[:, :, self.own - count : self.own].index_copy_(0, targets, window.index_select(0, chosen))
            store[step] = buffer

    def drop(self, step: int) -> None:
        """Deletes the states of one step."""
        self._keys[step] = self._values[step] = None

    def unused(self) -> int | None:
        """The first step without states, or None."""
        return next((step for step, keys in enumerate(self._keys) if keys is None), None)

    def states(self) -> PromptCache:
        """Copies of the first entry's states in every step (each 1 K S W)."""
        pairs = []
        for keys, values in zip(self._keys, self._values, strict=True):
            assert keys is not None and values is not None, "every step must have run"
            pairs.append((keys[:1, :, : self.own].clone(), values[:1, :, : self.own].clone()))
        return pairs

    # Read by the library when it builds positions and masks.
    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of filled slots."""
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Slot of the next token."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of keys visible to a query, and the slot of the first."""
        return self.length + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No limit."""
        return -1

    @property
    def is_sliding(self) -> list[bool]:
        """False per step: masks apply sliding windows, no states are dropped."""
        return [False] * self.steps

    @property
    def is_linear(self) -> list[bool]:
        """False per step: no linear attention."""
        return [False] * self.steps

    @property
    def is_dummy(self) -> list[bool]:
        """False per step: every step may hold states."""
        return [False] * self.steps

    @property
    def is_compileable(self) -> bool:
        """False: shapes change between steps."""
        return False

    def __len__(self) -> int:
        return self.steps


class FilledCache(RowCache):
    """A cache that counts as filled up to a length and holds nothing."""

    def __init__(self, length: int) -> None:
        super().__init__(1, 0, prompt_slots=length)


class PassCache(RowCache):
    """A cache for a single pass: keeps no states.

    Args:
        layers: L.
        prompt: full-depth states that every row attends to; None for none.
        shared: whether rows share the prompt's states instead of copying them.
    """

    def __init__(self, layers: int, prompt: PromptCache | None, *, shared: bool) -> None:
        super().__init__(layers, 0, prompt_slots=prompt[0][0].shape[2] if prompt else 0)
        self._prompt, self._shares = prompt, shared
        self._now: list[tuple[int, States]] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """States of one layer to attend to, including the prompt's unless it is shared."""
        if self._prompt is None:
            return key_states, value_states
        rows = key_states.shape[0]
        if self._shares:
            self._now = [(rows, self._prompt[layer_idx])]
            return key_states, value_states
        keys, values = (states.expand(rows, -1, -1, -1) for states in self._prompt[layer_idx])
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

    def shared_now(self) -> list[tuple[int, States]]:
        """The prompt, shared by all rows of the running layer."""
        return self._now
