"""How much fits: cuts work so that what the engine adds to the loaded model stays under a limit."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from oracle.errors import InputError
from oracle.models.decoder import Decoder

__all__ = ["MIB", "Footprint"]

MIB = 2**20

HEAD_COPIES = 3
"""Whole logits of a row that live at once: the product, its float copy, and a temporary of the reduction."""

ALLOCATIONS_AT_ONCE = 8192
TOKENS_AT_ONCE = 1024
ROWS_AT_ONCE = 256
"""Beyond these sizes matrix products gain nothing more and elementwise work leaves the processor's caches."""

LAYER_COPIES = 10
"""Tensors of the widest activation that live at once inside a layer."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that the engine's work takes, from the shapes of the model.

    Attributes:
        hidden: a hidden state of one token.
        widest: the widest activation of one token inside a layer.
        states: keys and values of one token in one layer.
        logits: the logits of one position.
        limit: bytes that may be added to the model.
        held: bytes that are taken already, by the states of open prompts; the limit is what remains.
    """

    hidden: int
    widest: int
    states: int
    logits: int
    limit: int
    held: int = 0

    @classmethod
    def of(cls, decoder: Decoder, limit_mib: int) -> "Footprint":
        """The footprint of a model under a limit."""
        config = decoder.model.config.get_text_config()
        size = decoder.model.dtype.itemsize
        width = config.hidden_size
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or width // config.num_attention_heads
        inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * width
        return cls(
            hidden=width * size,
            widest=max(inner, width) * size,
            states=2 * heads * head_width * size,
            logits=HEAD_COPIES * config.vocab_size * size,
            limit=limit_mib * MIB,
        )

    def after_prompts(self, prompt_tokens: int, layers: int) -> "Footprint":
        """The same, less the states of open prompts of this number of tokens."""
        held = prompt_tokens * layers * self.states
        return replace(self, limit=self.limit - held, held=self.held + held)

    def too_small(self, least: int) -> InputError:
        """The error for a limit under which nothing can be done."""
        return InputError(
            f"--memory {(self.limit + self.held) // MIB} (MiB) is too small for a single row; give at least "
            f"{-(-(least + self.held) // MIB)}, or fewer new tokens or shorter prompts"
        )

    def row(self, cost: int, slots: int, tokens: int) -> int:
        """Bytes of one decoded row.

        Args:
            cost: layers that the row runs.
            slots: tokens whose states it keeps in each of them.
            tokens: tokens that pass through a layer at once.
        """
        activations = tokens * (2 * self.hidden + LAYER_COPIES * self.widest)
        return cost * slots * self.states + activations + self.logits

    def rows(self, costs: Iterable[int], slots: int, tokens: int) -> int:
        """How many decoded rows of these costs fit at once, whichever of them they are; see `row`.

        Raises:
            InputError: if not even one fits.
        """
        needed_R = np.sort([self.row(int(cost), slots, tokens) for cost in costs])[::-1]
        if needed_R[0] > self.limit:
            raise self.too_small(int(needed_R[0]))
        return int((needed_R.cumsum() <= self.limit).sum())

    def pieces(self, tokens: int) -> tuple[int, int, int]:
        """Pieces of a shared pass over `tokens` tokens: allocations, nodes per layer call, rows per head call.

        Raises:
            InputError: if not even one allocation fits; the message names the least limit that works.
        """
        share = self.limit // 4
        inside = tokens * (2 * self.hidden + LAYER_COPIES * self.widest)
        kept = 3 * tokens * self.hidden
        least = 4 * max(inside, kept, self.logits)
        if least > self.limit:
            raise self.too_small(least)
        return (
            min(share // kept, ALLOCATIONS_AT_ONCE),
            max(1, min(share // inside, TOKENS_AT_ONCE // tokens)),
            min(share // self.logits, ROWS_AT_ONCE),
        )
