"""Keys and values of a batch of rows in which every row runs its own layers.

A batch runs steps: executions of layers, in order. Every step has a store of its own, so that a layer that a row runs
twice keeps two histories.

Shapes: G entries of one step, H key/value heads, S slots, D head width, P prompt tokens.
"""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

__all__ = ["PassCache", "PromptCache", "RowCache", "States"]

States = tuple[Tensor, Tensor]
"""Keys and values (each G H S D)."""

PromptCache = list[States]
"""Per layer the keys and values (each 1 H P D) of one prompt at full depth."""


class RowCache(Cache):
    """A cache whose step s holds only what runs step s.

    The decoder layers of the library call `update` as they would on their own cache; masks are built from
    `get_mask_sizes`. Entries are right-aligned: a shorter history leaves its first slots empty and masked.

    Prompts are either copied into the slots (`fill_prompts`) or shared by reference: then the first `prompt_slots`
    slots are virtual, and the attention of `oracle.models.attention` looks the prompts up in `shared`.

    Args:
        steps: how many steps there are.
        slots: capacity in tokens.
        prompt_slots: virtual slots of shared prompts, the longest prompt's length.

    Attributes:
        step: the step whose states `update` is given; whoever runs the layers sets it.
        shared: for each step its entries in order, as (how many, the states of the prompt that they share).
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
        """Slots filled so far, virtual and masked ones included; `own` of them are stored here."""
        return self.prompt_slots + self.own

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """Appends the new states (G H T D) of the current step and returns all of its own states so far."""
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
        # Empty slots are masked, but a mask does not hide a NaN: they must be finite.
        return like.new_zeros((entries, like.shape[1], self.slots, like.shape[3]))

    def advance(self, tokens: int) -> None:
        """Marks that every step has appended `tokens` slots."""
        self.own += tokens

    def fill_prompts(self, step: int, prompts: Seq[States], width: int) -> None:
        """Gives the entries of one step copies of their prompts' states, right-aligned in the first `width` slots."""
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
            sources: a cache, which of its entries are taken, and where they go.
            entries: G, how many there are in all.
        """
        for store, name in ((self._keys, "_keys"), (self._values, "_values")):
            buffer: Tensor | None = None
            for cache, taken, places in sources:
                theirs = getattr(cache, name)[step]
                if theirs is None:
                    continue
                same_shape = (entries, cache.own, cache.slots) == (len(theirs), self.own, self.slots)
                if same_shape and np.array_equal(taken, np.arange(entries)):
                    buffer = theirs  # nothing moves
                    break
                buffer = self._allocate(entries, theirs) if buffer is None else buffer
                count = min(cache.own, self.own)
                window = theirs[:, :, cache.own - count : cache.own]
                chosen, targets = (torch.from_numpy(part).to(theirs.device) for part in (taken, places))
                buffer[:, :, self.own - count : self.own].index_copy_(0, targets, window.index_select(0, chosen))
            store[step] = buffer

    def drop(self, step: int) -> None:
        """Lets go of the states of one step."""
        self._keys[step] = self._values[step] = None

    def unused(self) -> int | None:
        """The first step that was given no states, or None."""
        return next((step for step, keys in enumerate(self._keys) if keys is None), None)

    def states(self) -> PromptCache:
        """Copies of the first entry's states in every step (each 1 H S D)."""
        pairs = []
        for keys, values in zip(self._keys, self._values, strict=True):
            assert keys is not None and values is not None, "every step must have run"
            pairs.append((keys[:1, :, : self.own].clone(), values[:1, :, : self.own].clone()))
        return pairs

    # What the library asks of a cache when it builds positions and masks.
    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots filled so far."""
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Slot of the next token."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of keys a query sees, and the slot of the first."""
        return self.length + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No limit."""
        return -1

    @property
    def is_sliding(self) -> list[bool]:
        """No layer drops old states: sliding windows are applied by the masks."""
        return [False] * self.steps

    @property
    def is_linear(self) -> list[bool]:
        """No layer is a linear-attention one."""
        return [False] * self.steps

    @property
    def is_dummy(self) -> list[bool]:
        """Every layer may hold states."""
        return [False] * self.steps

    @property
    def is_compileable(self) -> bool:
        """Shapes change from step to step."""
        return False

    def __len__(self) -> int:
        return self.steps


class PassCache(RowCache):
    """A cache for one pass that nothing follows: it keeps no states.

    Args:
        layers: L.
        prompt: full-depth states that every row attends to first; None for none.
        shared: whether the rows share the prompt's states instead of getting a copy each.
    """

    def __init__(self, layers: int, prompt: PromptCache | None, *, shared: bool) -> None:
        super().__init__(layers, 0, prompt_slots=prompt[0][0].shape[2] if prompt else 0)
        self._prompt, self._shares = prompt, shared
        self._now: list[tuple[int, States]] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """The states of one layer that the rows attend to, the prompt's included unless it is shared."""
        if self._prompt is None:
            return key_states, value_states
        rows = key_states.shape[0]
        if self._shares:
            self._now = [(rows, self._prompt[layer_idx])]
            return key_states, value_states
        keys, values = (states.expand(rows, -1, -1, -1) for states in self._prompt[layer_idx])
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

    def shared_now(self) -> list[tuple[int, States]]:
        """The prompt, shared by all rows of the layer that runs."""
        return self._now
