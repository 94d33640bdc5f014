"""Prompts of the engine: token ids, and what one full-depth pass over them leaves behind."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import PromptCache, RowCache
from oracle.models.layer_call import Call
from oracle.models.loading import LanguageModel
from oracle.models.rendering import render
from oracle.types import Asked, Sequence

__all__ = ["PromptState", "batchable", "encode", "prompt_pass"]


@dataclass(frozen=True, kw_only=True)
class PromptState:
    """One prompt after one pass of the full model; shared by all allocations of its sequence.

    Attributes:
        tokens: the prompt's token ids (T).
        cache: its keys and values per layer (each 1 H P D).
        logits_V: the full model's logits for the token that follows.
    """

    tokens: Tensor
    cache: PromptCache
    logits_V: Tensor

    @property
    def length(self) -> int:
        """P, in tokens."""
        return len(self.tokens)


def encode(model: LanguageModel, prompt: Asked | Sequence, config: SearchConfig) -> list[int]:
    """Token ids of a prompt: those of a sequence whose prompt is rendered, otherwise rendered now.

    Raises:
        InputError: if it cannot be rendered, or the prompt and the new tokens do not fit the model's context.
    """
    if isinstance(prompt, Sequence):
        rendered = prompt.rendered or render(model.tokenizer, prompt.asked, config)
    else:
        rendered = render(model.tokenizer, prompt, config)
    count, new_tokens = len(rendered.ids), config.max_new_tokens
    if model.context is not None and count + new_tokens > model.context:
        raise InputError(
            f"a prompt of {count} tokens and {new_tokens} new ones do not fit the model's context of "
            f"{model.context} tokens; shorten it, leave it out, or lower --max-new-tokens"
        )
    return list(rendered.ids)


@torch.inference_mode()
def prompt_pass(decoder: Decoder, ids: list[int]) -> PromptState:
    """Runs a prompt once through every layer and keeps what later evaluations share."""
    tokens = torch.tensor(ids, dtype=torch.long, device=decoder.device)
    cache = RowCache(decoder.layers, len(ids))
    positions = torch.arange(len(ids), device=decoder.device)[None]
    step = decoder.begin(tokens[None], cache=cache, positions_RT=positions)
    hidden = step.hidden_RTD
    for layer in range(decoder.layers):
        cache.step = layer
        hidden = decoder.run(Call(layer), hidden, step)
    cache.advance(len(ids))
    return PromptState(tokens=tokens, cache=cache.states(), logits_V=decoder.finish(hidden[:, -1:])[0, 0])


def batchable(decoder: Decoder, prompts: Seq[PromptState]) -> list[list[int]]:
    """Positions of prompts that may share batches: all of them, or those of one prompt where positions must agree."""
    if decoder.positions.mix:
        return [list(range(len(prompts)))]
    groups: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(id(prompt), []).append(place)
    return list(groups.values())
