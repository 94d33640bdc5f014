"""Adapter of an unmodified Hugging Face model: its layers one by one, and what was found out about it before use."""

import inspect
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from oracle.errors import door
from oracle.models.context import forget_lengths
from oracle.models.greedy import best
from oracle.models.kv_cache import FilledCache
from oracle.models.layer_runner import LayerRunner
from oracle.models.probes import probe

__all__ = ["Decoder"]


class Decoder(LayerRunner):
    """The layers of a model that has been probed.

    Running every layer in order on all rows gives the logits of the untouched model, bit for bit.

    Args:
        model: a causal language model of the transformers library, in evaluation mode.

    Attributes:
        shares_prompts: whether rows can attend to a shared prompt without copying it.
        plain_head: whether the logits are exactly the head applied to `normed` hidden states.
        proposals: finds the best tokens without all logits in float32; None where that is not exact or not faster.
        positions: constraints of the model's attention on positions.
        rounding: largest change of logits between equivalent computations, measured on this machine.
        width: D, of the hidden states.
        vocabulary: V, of the logits.
        state_width: elements of the keys and values of one token in the layer with the most.
        tried: scopes and units in which the cut model that verifies results has been run; see `oracle.engine.Engine`.

    Raises:
        InputError: if the model is not decoder-only, or its layers cannot be run one by one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        forget_lengths(model)
        super().__init__(model)
        self.tried: set[tuple[str, str]] = set()
        with door(f"running the layers of {type(model).__name__} one by one", "choose another model"):
            found = probe(self)
        self.positions = found.positions
        self.rounding = found.rounding
        self.width, self.vocabulary, self.state_width = found.width, found.vocabulary, found.state_width
        self.plain_head, self.proposals = found.plain_head, found.proposals
        self.shares_prompts = found.shares_prompts

    @property
    def one_pass(self) -> int | None:
        """Longest input of which one pass gives what passes token by token give; None if unlimited."""
        return 0 if self.rounding.interact else self.positions.one_pass

    @torch.inference_mode()
    def best(self, hidden_R1D: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely token of each row and its lead over the second (R each), from the last hidden states."""
        if self.proposals is not None:
            return self.proposals.best(self.normed(hidden_R1D)[:, 0])
        return best(self.finish(hidden_R1D)[:, 0])

    @cached_property
    def cache_switch(self) -> int | None:
        """Length in tokens beyond which the model's own code goes on without the cache it has; None if it never does.

        Found by asking that code (`prepare_inputs_for_generation`) at the lengths that the configuration names.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        places = [vars(config), rope, *(value for value in rope.values() if isinstance(value, dict))]
        lengths = {place.get("original_max_position_embeddings") for place in places}
        return next((length for length in sorted(filter(None, lengths)) if self._drops_cache(length)), None)

    def _drops_cache(self, length: int) -> bool:
        prepare: Any = self.model.prepare_inputs_for_generation
        name = "cache" if "cache" in inspect.signature(prepare).parameters else "past_key_values"
        cache = FilledCache(length)
        ids = torch.zeros((1, length + 1), dtype=torch.long, device=self.device)
        asked: dict[str, Any] = {name: cache, "attention_mask": torch.ones_like(ids), "use_cache": True}
        try:
            return prepare(ids, **asked).get(name) is not cache
        except (TypeError, AttributeError, ValueError, IndexError, KeyError, RuntimeError):
            return True  # code of its own that cannot be asked is not trusted to keep its cache
