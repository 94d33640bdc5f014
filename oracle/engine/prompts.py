"""Prompts of the engine: token ids, and what one full-depth pass over them leaves behind."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oracle.config import Scope, SearchConfig
from oracle.errors import InputError
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import PromptCache, RowCache
from oracle.models.layer_call import Call
from oracle.models.loading import LanguageModel
from oracle.models.rendering import encode_text, render, uses_template
from oracle.types import Asked, Sequence

__all__ = ["PromptState", "batchable", "check_cache_switch", "encode", "encode_choice", "prompt_pass"]


@dataclass(frozen=True, kw_only=True)
class PromptState:
    """One prompt after one pass of the full model; shared by all allocations of its sequence.

    Attributes:
        tokens: the prompt's token ids (T).
        cache: keys and values of its first tokens per layer (each 1 H P D): of all but the last in scope
            `decode-last`, of all in other scopes.
        logits_V: the full model's logits for the token that follows.
        first: the full model's first token, what `generation_config` asks for included; None if not chosen yet.
        own: number of its last tokens that every allocation runs itself: none in scope `decode`, one in `decode-last`,
            all in `sequence`.
    """

    tokens: Tensor
    cache: PromptCache
    logits_V: Tensor
    first: int | None = None
    own: int = 0

    @property
    def length(self) -> int:
        """P, in tokens."""
        return len(self.tokens)

    @property
    def given(self) -> bool:
        """Whether the first token of every output is the full model's."""
        return self.own == 0

    @property
    def full_depth(self) -> int:
        """Number of its first tokens whose states, of the full model, every allocation starts from."""
        return self.length - self.own

    @property
    def rest(self) -> Tensor:
        """The tokens that every allocation runs itself."""
        return self.tokens[self.full_depth :]

    @property
    def uncached(self) -> Tensor:
        """The tokens that the cache lacks."""
        return self.tokens[self.cache[0][0].shape[2] :]


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
    if config.scope == "decode-last" and count < 2:
        raise InputError("scope decode-last requires prompts of at least 2 tokens, not 1; use scope sequence")
    # The last new token is not fed.
    check_cache_switch(model.decoder, len(rendered.ids), config.max_new_tokens - 1, "new tokens that are fed")
    return list(rendered.ids)


def encode_choice(tokenizer: Any, sequence: Sequence, choice: str, config: SearchConfig) -> list[int]:
    """Token ids of a choice after a sequence's prompt, as in lm-evaluation-harness; none for an empty choice.

    Prompt and choice are encoded as one text, because some tokenizers mark the beginning of a text. Unlike there, white
    space that ends the prompt stays the prompt's.
    """
    if not choice:
        return []
    rendered = sequence.rendered or render(tokenizer, sequence.asked, config)
    templated = uses_template(tokenizer, config)
    delimiter = config.target_delimiter
    if delimiter is None:
        begun = bool(sequence.messages) and sequence.messages[-1].role == "assistant"
        apart = rendered.text[-1:].isspace() or choice[0].isspace()
        delimiter = " " if (begun or not templated) and not apart else ""
    whole = encode_text(tokenizer, rendered.text + delimiter + choice, templated)
    length = len(rendered.ids)
    if len(whole) > length and whole[:length] == rendered.ids:
        return list(whole[length:])
    # The last token of the prompt would be another one with the choice behind it.
    return list(tokenizer(delimiter + choice, add_special_tokens=False)["input_ids"])


def check_cache_switch(decoder: Decoder, prompt_tokens: int, following: int, what: str) -> None:
    """Makes sure that what follows a prompt does not cross a length at which the model's own code drops its cache.

    Args:
        decoder: the model.
        prompt_tokens: length of the prompt.
        following: tokens that are fed after it.
        what: name of those, for the message.

    Raises:
        InputError: if it does.
    """
    length = decoder.cache_switch
    if length is not None and prompt_tokens <= length < prompt_tokens + following:
        raise InputError(
            f"a prompt of {prompt_tokens} tokens and {following} {what} cross {length} tokens, where "
            f"{type(decoder.model).__name__} drops its cache and computes every key and value again, under longrope "
            "with other factors (original_max_position_embeddings): that is not supported; shorten the prompt or lower "
            f"--max-new-tokens to stay within {length} tokens, or use prompts of more than {length}"
        )


@torch.inference_mode()
def prompt_pass(decoder: Decoder, ids: list[int], scope: Scope = "decode") -> PromptState:
    """Runs a prompt once through every layer and keeps what later evaluations share.

    In scope `decode-last` its last token follows in a pass of its own, as in generation.
    """
    tokens = torch.tensor(ids, dtype=torch.long, device=decoder.device)
    cache = RowCache(decoder.layers, len(ids))

    def run(some: Tensor) -> Tensor:
        positions = torch.arange(cache.length, cache.length + len(some), device=decoder.device)[None]
        step = decoder.begin(some[None], cache=cache, positions_RT=positions)
        hidden = step.hidden_RTD
        for layer in range(decoder.layers):
            cache.step = layer
            hidden = decoder.run(Call(layer), hidden, step)
        cache.advance(len(some))
        return hidden[:, -1:]

    own = {"decode": 0, "decode-last": 1, "sequence": len(ids)}[scope]
    if scope == "decode-last":
        run(tokens[:-1])
        states, hidden = cache.states(), run(tokens[-1:])
    else:
        hidden = run(tokens)
        states = cache.states()
    return PromptState(tokens=tokens, cache=states, logits_V=decoder.finish(hidden)[0, 0], own=own)


def batchable(decoder: Decoder, prompts: Seq[PromptState]) -> list[list[int]]:
    """Positions of prompts that may share batches: all of them, or those of one prompt where positions must agree."""
    if decoder.positions.mix:
        return [list(range(len(prompts)))]
    groups: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(id(prompt), []).append(place)
    return list(groups.values())
