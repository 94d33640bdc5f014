"""The naive way: one allocation at a time, by the library's own `generate` on a model cut to its layers.

Slow and simple on purpose, and independent of the rest of the engine: from the prompt's tokens on, only the library
runs. What the engine reports is checked against this, and what lies within rounding of a tie is decided by it.
"""

import copy
import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from inspect import signature
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from oracle.models.layer_call import Call, Part
from oracle.models.loading import LanguageModel
from oracle.models.truncate import truncated

__all__ = ["Difference", "PlainForward", "first_difference", "plain_generate", "plain_logits"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a recorded output leaves that of plain generation.

    Attributes:
        position: place of the token in the output, from 0.
        recorded: the recorded token id; None if the recorded output ends before.
        plain: the token id of plain generation; None if that ends before.
        lead: logits by which plain generation prefers its own token; None if one of them is missing.
    """

    position: int
    recorded: int | None
    plain: int | None
    lead: float | None


def first_difference(plain: tuple[tuple[int, ...], Tensor], recorded: Seq[int]) -> Difference | None:
    """The first token at which a recorded output differs from plain generation; None if they are equal.

    Args:
        plain: tokens and logits (T V), from `plain_logits`.
        recorded: token ids.
    """
    tokens, logits_TV = plain
    for position, (ours, theirs) in enumerate(zip_longest(recorded, tokens)):
        if ours != theirs:
            both = ours is not None and theirs is not None
            lead = float(logits_TV[position, theirs] - logits_TV[position, ours]) if both else None
            return Difference(position=position, recorded=ours, plain=theirs, lead=lead)
    return None


def plain_generate(
    model: LanguageModel,
    prompt_P: Tensor,
    calls: Seq[Call],
    *,
    max_new_tokens: int,
    shared_prompt: bool,
) -> tuple[int, ...]:
    """Greedy tokens of one allocation by plain generation; see `plain_logits`."""
    tokens, _ = _generate(model, prompt_P, calls, max_new_tokens, shared_prompt)
    return tokens


def plain_logits(
    model: LanguageModel,
    prompt_P: Tensor,
    calls: Seq[Call],
    *,
    max_new_tokens: int,
    shared_prompt: bool,
) -> tuple[tuple[int, ...], Tensor]:
    """Greedy tokens of one allocation by plain generation, batch 1, and the logits of each (T V).

    In scope `decode` the full model reads the prompt and gives the first token; the cut model goes on from its states
    of the prompt, of the allocated layers only.

    Args:
        model: the full model.
        prompt_P: the prompt's token ids.
        calls: the layers that run, or parts of them.
        max_new_tokens: the most tokens to generate.
        shared_prompt: scope `decode` rather than `sequence`.
    """
    tokens, logits = _generate(model, prompt_P, calls, max_new_tokens, shared_prompt, output_logits=True)
    return tokens, torch.cat(logits)


class PlainForward:
    """One forward of the library per recorded output of a prompt, batch 1, on the model cut to its allocation.

    In scope `decode` the full model's pass over the prompt is computed once, and each cut model goes on from copies of
    its states, as in plain generation.

    Args:
        model: the full model.
        prompt_P: the prompt's token ids.
        shared_prompt: scope `decode` rather than `sequence`.
    """

    def __init__(self, model: LanguageModel, prompt_P: Tensor, *, shared_prompt: bool) -> None:
        self._model, self._prompt_P, self._shared = model, prompt_P, shared_prompt
        self._full: tuple[DynamicCache, Tensor] | None = None

    @torch.inference_mode()
    def least_lead(self, calls: Seq[Call], recorded: Seq[int]) -> float:
        """Least lead, in logits, of the recorded tokens over all others at their places; negative if one is not best.

        Args:
            calls: the layers that run, or parts of them.
            recorded: token ids of the output, at least one.
        """
        apart = any(call.part != Part.WHOLE for call in calls)
        attends = any(call.part != Part.MLP for call in calls)
        cut: Any = truncated(self._model.network, calls, self._model.decoder.sublayers.shapes if apart else None)
        tokens_T = self._prompt_P.new_tensor(recorded)
        if not self._shared:
            ids = torch.cat([self._prompt_P, tokens_T[:-1]])
            return _lead(cut(input_ids=ids[None], use_cache=False).logits[0, len(self._prompt_P) - 1 :], tokens_T)
        full, first_1V = self._prompt()
        lead = _lead(first_1V, tokens_T[:1])
        if len(tokens_T) == 1:
            return lead
        if attends:
            kept = DynamicCache(config=cut.config)
            kept.layers = [copy.deepcopy(full.layers[call.layer]) for call in calls if call.part != Part.MLP]
            ids = tokens_T[:-1]
            length = len(self._prompt_P) + len(ids)
            seen = torch.ones((1, length), dtype=torch.long, device=ids.device)
            logits_TV = cut(input_ids=ids[None], attention_mask=seen, cache=kept, use_cache=True).logits[0]
        else:
            ids = torch.cat([self._prompt_P, tokens_T[:-1]])
            logits_TV = cut(input_ids=ids[None], use_cache=False).logits[0, len(self._prompt_P) :]
        return min(lead, _lead(logits_TV, tokens_T[1:]))

    def _prompt(self) -> tuple[DynamicCache, Tensor]:
        """The full model's states of the prompt, and its logits for the token that follows (1 V)."""
        if self._full is None:
            self._full = _read_prompt(self._model, self._prompt_P)
        return self._full


def _read_prompt(model: LanguageModel, prompt_P: Tensor) -> tuple[DynamicCache, Tensor]:
    full = DynamicCache(config=model.network.config)
    # As `generate` does where the model can: the head is applied to the last position only.
    last = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.network.forward).parameters else {}
    return full, model.network(prompt_P[None], cache=full, use_cache=True, **last).logits[:, -1]


def _lead(logits_TV: Tensor, tokens_T: Tensor) -> float:
    """Least lead of tokens over the best other token of each row; NaN counts as none."""
    own_T1 = logits_TV.gather(1, tokens_T[:, None])
    others_TV = logits_TV.scatter(1, tokens_T[:, None], -math.inf)
    least = float((own_T1[:, 0] - others_TV.amax(1)).min())
    return -math.inf if math.isnan(least) else least


@torch.inference_mode()
def _generate(
    model: LanguageModel,
    prompt_P: Tensor,
    calls: Seq[Call],
    max_new_tokens: int,
    shared_prompt: bool,
    output_logits: bool = False,
) -> tuple[tuple[int, ...], list[Tensor]]:
    """Tokens, and the logits of each (1 V) if `output_logits` is wanted."""
    apart = any(call.part != Part.WHOLE for call in calls)
    attends = any(call.part != Part.MLP for call in calls)
    cut: Any = truncated(model.network, calls, model.decoder.sublayers.shapes if apart else None)
    # Greedy is greedy: no penalty or other habit that the model's own settings ask for.
    cut.generation_config = GenerationConfig()
    ids = prompt_P
    head: tuple[int, ...] = ()
    logits: list[Tensor] = []
    start: dict[str, Any] = {}
    if shared_prompt:
        full, first_1V = _read_prompt(model, prompt_P)
        logits.append(first_1V)
        first = int(first_1V.argmax())
        if first in model.stop or max_new_tokens == 1:
            return (first,), logits
        head, ids = (first,), torch.cat([ids, ids.new_tensor([first])])
        if attends:
            kept = DynamicCache(config=cut.config)
            kept.layers = [full.layers[call.layer] for call in calls if call.part != Part.MLP]
            start["cache"] = kept
    elif apart and attends:
        # Without a configuration the cache grows by a layer for each attention that there is.
        start["cache"] = DynamicCache()
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens - shared_prompt,
        eos_token_id=sorted(model.stop),
        pad_token_id=min(model.stop, default=0),
        # A model without attention has no cache to tell it how much it has seen.
        use_cache=attends,
        return_dict_in_generate=True,
        output_logits=output_logits,
    )
    output = cut.generate(
        ids[None],
        attention_mask=torch.ones_like(ids[None]),
        generation_config=settings,
        **start,
    )
    return (*head, *output.sequences[0, len(ids) :].tolist()), [*logits, *(output.logits or ())]
