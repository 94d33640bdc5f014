"""Keys and values of a batch of rows in which every row runs its own layers.

Shapes: R rows, G rows of one layer, H key/value heads, S slots, D head width, P prompt tokens.
"""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor
from transformers.cache_utils import Cache

__all__ = ["PassCache", "PromptCache", "RowCache"]

PromptCache = list[tuple[Tensor, Tensor]]
"""Per layer the keys and values (each 1 H P D) of one prompt at full depth."""


class RowCache(Cache):
    """A cache whose layer l holds only the rows that run layer l.

    The decoder layers of the library call `update` as they would on their own cache; masks are built from
    `get_mask_sizes`. Rows are right-aligned: a shorter prompt leaves its first slots empty and masked.

    Prompts are either copied into the slots (`fill_prompts`) or shared by reference: then the first `prompt_slots`
    slots are virtual, and the attention of `oracle.models.attention` looks the prompts up in `groups`.

    Args:
        rows_by_layer: for each layer the number of rows that run it.
        slots: capacity in tokens per row.
        prompt_slots: virtual slots of shared prompts, the longest prompt's length.

    Attributes:
        groups: for each layer the rows in order, as (how many, the prompt that they share).
        current_layer: the layer that was updated last.
    """

    def __init__(self, rows_by_layer: Seq[int], slots: int, *, prompt_slots: int = 0) -> None:
        super().__init__(layers=[])
        self.rows_by_layer = list(rows_by_layer)
        self.slots = slots
        self.prompt_slots = prompt_slots
        self.groups: list[list[tuple[int, PromptCache]]] = [[] for _ in self.rows_by_layer]
        self.current_layer = -1
        self._own = 0
        self._keys: list[Tensor | None] = [None] * len(self.rows_by_layer)
        self._values: list[Tensor | None] = [None] * len(self.rows_by_layer)

    @property
    def length(self) -> int:
        """Slots filled so far, virtual and masked ones included."""
        return self.prompt_slots + self._own

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Appends the new states (G H T D) of one layer and returns all of its own states so far."""
        self.current_layer = layer_idx
        end = self._own + key_states.shape[2]
        kept = []
        for store, states in ((self._keys, key_states), (self._values, value_states)):
            buffer = store[layer_idx]
            if buffer is None:
                buffer = store[layer_idx] = self._allocate(layer_idx, states)
            buffer[:, :, self._own : end] = states
            kept.append(buffer[:, :, :end])
        return kept[0], kept[1]

    def _allocate(self, layer_idx: int, like: Tensor) -> Tensor:
        rows = self.rows_by_layer[layer_idx]
        # Empty slots are masked, but a mask does not hide a NaN: they must be finite.
        return like.new_zeros((rows, like.shape[1], self.slots, like.shape[3]))

    def advance(self, tokens: int) -> None:
        """Marks that every layer has appended `tokens` slots."""
        self._own += tokens

    def fill_prompts(self, layer_idx: int, prompts: Seq[PromptCache], width: int) -> None:
        """Gives the rows of one layer copies of their prompts' states, right-aligned in the first `width` slots."""
        for store, part in ((self._keys, 0), (self._values, 1)):
            buffer = self._allocate(layer_idx, prompts[0][layer_idx][part])
            for row, prompt in enumerate(prompts):
                states = prompt[layer_idx][part]
                buffer[row, :, width - states.shape[2] : width] = states[0]
            store[layer_idx] = buffer

    def select(self, layer_idx: int, rows: Tensor) -> None:
        """Keeps only the given rows of one layer."""
        self.rows_by_layer[layer_idx] = len(rows)
        for store in (self._keys, self._values):
            buffer = store[layer_idx]
            if buffer is not None:
                store[layer_idx] = buffer.index_select(0, rows)

    def unused(self) -> int | None:
        """The first layer that was given no states, or None."""
        return next((layer for layer, keys in enumerate(self._keys) if keys is None), None)

    def states(self, row: int = 0) -> PromptCache:
        """Copies of one row's states in every layer (each 1 H S D)."""
        pairs = []
        for keys, values in zip(self._keys, self._values, strict=True):
            assert keys is not None and values is not None, "every layer must have run"
            window = slice(row, row + 1), slice(None), slice(0, self._own)
            pairs.append((keys[window].clone(), values[window].clone()))
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
        return [False] * len(self.rows_by_layer)

    @property
    def is_linear(self) -> list[bool]:
        """No layer is a linear-attention one."""
        return [False] * len(self.rows_by_layer)

    @property
    def is_dummy(self) -> list[bool]:
        """Every layer may hold states."""
        return [False] * len(self.rows_by_layer)

    @property
    def is_compileable(self) -> bool:
        """Shapes change from step to step."""
        return False

    def __len__(self) -> int:
        return len(self.rows_by_layer)


class PassCache(RowCache):
    """A cache for one pass that nothing follows: it keeps no states.

    Args:
        layers: L.
        prompt: full-depth states that every row attends to first; None for none.
        shared: whether the rows look the prompt up in `groups` instead of getting a copy each.
    """

    def __init__(self, layers: int, prompt: PromptCache | None, *, shared: bool) -> None:
        super().__init__([0] * layers, 0, prompt_slots=prompt[0][0].shape[2] if prompt else 0)
        self._prompt, self._shared = prompt, shared

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The states of one layer that the rows attend to, the prompt's included unless it is shared."""
        self.current_layer = layer_idx
        if self._prompt is None:
            return key_states, value_states
        if self._shared:
            self.groups[layer_idx] = [(key_states.shape[0], self._prompt)]
            return key_states, value_states
        keys, values = (states.expand(key_states.shape[0], -1, -1, -1) for states in self._prompt[layer_idx])
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)
