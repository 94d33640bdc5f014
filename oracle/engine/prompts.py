"""Prompts as the model sees them: token ids, and what one full-depth pass over them leaves behind."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.errors import InputError, door
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import PromptCache, RowCache
from oracle.models.layer_call import Call
from oracle.models.loading import LanguageModel

__all__ = ["PromptState", "batchable", "encode", "prompt_pass"]


TEMPLATE_REMEDY = (
    "name another one with --chat-template, give the system turn that it demands with --system, or pass prompts "
    "unformatted with --no-chat-template"
)


@dataclass(frozen=True, kw_only=True)
class PromptState:
    """One prompt after one pass of the full model; shared by all allocations of its sequence.

    Attributes:
        tokens: the prompt's token ids (P).
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


def encode(model: LanguageModel, prompt: str, *, chat_template: bool, new_tokens: int) -> list[int]:
    """Token ids of a prompt, through the tokenizer's chat template if it has one and it is wanted.

    Raises:
        InputError: if the prompt and the new tokens do not fit the model's context.
    """
    tokenizer = model.tokenizer
    if chat_template and tokenizer.chat_template:
        message = [{"role": "user", "content": prompt}]
        with door(f"the chat template of '{model.name}'", TEMPLATE_REMEDY):
            text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        with door(f"the tokenizer of '{model.name}'", "repair the tokenizer, or leave this prompt out"):
            ids = tokenizer(prompt)["input_ids"]
    if not ids:
        raise InputError("a prompt of at least one token is required, but this one is empty; remove it")
    if model.context is not None and len(ids) + new_tokens > model.context:
        raise InputError(
            f"a prompt of {len(ids)} tokens and {new_tokens} new ones do not fit the model's context of "
            f"{model.context} tokens; shorten it, leave it out, or lower --max-new-tokens"
        )
    return ids


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
