"""The naive way: one allocation at a time, by the library's own `generate` on a model cut to its layers.

Slow and simple on purpose, and independent of the rest of the engine: from the prompt's tokens on, only the library
runs. What the engine reports is checked against this, and what lies within rounding of a tie is decided by it.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from inspect import signature
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from oracle.config import Scope
from oracle.engine.decode import Settings
from oracle.models.layer_call import Call, Part
from oracle.models.loading import LanguageModel
from oracle.models.truncate import truncated

__all__ = ["Difference", "first_difference", "plain_generate", "plain_logits", "read_prompt"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a recorded output leaves that of plain generation.

    Attributes:
        position: place of the token in the output, from 0.
        recorded: the recorded token id; None if the recorded output ends before.
        plain: the token id of plain generation; None if that ends before.
        lead: score (a processed logit) by which plain generation prefers its own token; None if one is missing.
    """

    position: int
    recorded: int | None
    plain: int | None
    lead: float | None


def first_difference(plain: tuple[tuple[int, ...], Tensor], recorded: Seq[int]) -> Difference | None:
    """The first token at which a recorded output differs from plain generation; None if they are equal.

    Args:
        plain: tokens and scores (T V), from `plain_logits`.
        recorded: token ids.
    """
    tokens, scores_TV = plain
    for position, (ours, theirs) in enumerate(zip_longest(recorded, tokens)):
        if ours != theirs:
            both = ours is not None and theirs is not None
            lead = float(scores_TV[position, theirs] - scores_TV[position, ours]) if both else None
            return Difference(position=position, recorded=ours, plain=theirs, lead=lead)
    return None


def plain_generate(model: LanguageModel, prompt_T: Tensor, calls: Seq[Call], settings: Settings) -> tuple[int, ...]:
    """Greedy tokens of one allocation by plain generation; see `plain_logits`."""
    tokens, _ = _generate(model, prompt_T, calls, settings, None)
    return tokens


def plain_logits(
    model: LanguageModel,
    prompt_T: Tensor,
    calls: Seq[Call],
    settings: Settings,
    *,
    wanted: Literal["logits", "scores"] = "logits",
) -> tuple[tuple[int, ...], Tensor]:
    """Greedy tokens of one allocation by plain generation, batch 1, and the logits of each (T V).

    In scope `decode` the full model reads the prompt and gives the first token; in scope `decode-last` it reads all but
    the last token. The cut model goes on from these states, of the allocated layers only. What
    `generation_config` and stop texts ask for is done by `generate` itself, given the library's processors and criteria
    of the whole prompt and its first token.

    Args:
        model: the full model.
        prompt_T: the prompt's token ids.
        calls: the layers that run, or parts of them.
        settings: lengths, stops, scope, processors.
        wanted: raw logits, or what the processors make of them.
    """
    tokens, values = _generate(model, prompt_T, calls, settings, wanted)
    return tokens, torch.cat(values)


def read_prompt(model: LanguageModel, prompt_T: Tensor, scope: Scope) -> tuple[DynamicCache, Tensor]:
    """The full model's states of what it reads of a prompt, and its logits for the token that follows (1 V)."""
    full = DynamicCache(config=model.network.config)
    read_T = prompt_T if scope == "decode" else prompt_T[:-1]
    # As `generate` does where the model can: the head is applied to the last position only.
    last = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.network.forward).parameters else {}
    return full, model.network(read_T[None], cache=full, use_cache=True, **last).logits[:, -1]


@torch.inference_mode()
def _generate(
    model: LanguageModel,
    prompt_T: Tensor,
    calls: Seq[Call],
    settings: Settings,
    wanted: Literal["logits", "scores"] | None,
) -> tuple[tuple[int, ...], list[Tensor]]:
    """Tokens, and the logits or scores of each (1 V) if they are wanted."""
    apart = any(call.part != Part.WHOLE for call in calls)
    attends = any(call.part != Part.MLP for call in calls)
    cut: Any = truncated(model.network, calls, model.decoder.sublayers.shapes if apart else None)
    # What the model's own settings ask for comes from `settings`, so that all of it counts from the prompt's end.
    cut.generation_config = GenerationConfig()
    ids = prompt_T
    head: tuple[int, ...] = ()
    values: list[Tensor] = []
    start: dict[str, Any] = {}
    if settings.processors is not None:
        start["logits_processor"] = settings.processors.built(prompt_T)
    if settings.stop_texts is not None:
        start["stopping_criteria"] = settings.stop_texts.criteria
    if settings.scope != "sequence":
        full, logits_1V = read_prompt(model, ids, settings.scope)
        if settings.scope == "decode":
            first = settings.one(logits_1V[0], (prompt_T, ()))
            if wanted == "scores" and settings.processors is not None:
                logits_1V = settings.processors.scores(logits_1V, [(prompt_T, ())])
            values.append(logits_1V)
            if settings.ended([(prompt_T, (first,))])[0] or settings.max_new_tokens == 1:
                return (first,), values
            head, ids = (first,), torch.cat([ids, ids.new_tensor([first])])
        if attends:
            kept = DynamicCache(config=cut.config)
            kept.layers = [full.layers[call.layer] for call in calls if call.part != Part.MLP]
            start["cache"] = kept
    elif apart and attends:
        # Without a configuration the cache grows by a layer for each attention that there is.
        start["cache"] = DynamicCache()
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=settings.max_new_tokens - len(head),
        eos_token_id=sorted(settings.stop),
        pad_token_id=min(settings.stop, default=0),
        # A model without attention has no cache to tell it how much it has seen.
        use_cache=attends,
        return_dict_in_generate=True,
        output_logits=wanted == "logits",
        output_scores=wanted == "scores",
    )
    output = cut.generate(
        ids[None],
        attention_mask=torch.ones_like(ids[None]),
        generation_config=generation,
        **start,
    )
    rest = (output.logits if wanted == "logits" else output.scores) or ()
    return (*head, *output.sequences[0, len(ids) :].tolist()), [*values, *rest]
