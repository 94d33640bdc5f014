"""The naive way: one allocation at a time, by the library's own `generate` on a model cut to its layers.

Slow and simple on purpose, and independent of the rest of the engine: from the prompt's tokens on, only the library
runs. What the engine reports is checked against this, and what lies within rounding of a tie is decided by it.
"""

from collections.abc import Sequence as Seq
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from oracle.models.call import Call, Part
from oracle.models.loading import LanguageModel
from oracle.models.truncate import truncated

__all__ = ["plain_generate"]


@torch.inference_mode()
def plain_generate(
    model: LanguageModel,
    prompt_P: Tensor,
    calls: Seq[Call],
    *,
    max_new_tokens: int,
    shared_prompt: bool,
) -> tuple[int, ...]:
    """Greedy tokens of one allocation by plain generation, batch 1.

    In scope `decode` the full model reads the prompt and gives the first token; the cut model goes on from its states
    of the prompt, of the allocated layers only.

    Args:
        model: the full model.
        prompt_P: the prompt's token ids.
        calls: the layers that run, or parts of them.
        max_new_tokens: the most tokens to generate.
        shared_prompt: scope `decode` rather than `sequence`.
    """
    apart = any(call.part != Part.WHOLE for call in calls)
    attends = any(call.part != Part.MLP for call in calls)
    cut: Any = truncated(model.network, calls, model.decoder.sublayers.shapes if apart else None)
    # Greedy is greedy: no penalty or other habit that the model's own settings ask for.
    cut.generation_config = GenerationConfig()
    ids = prompt_P
    head: tuple[int, ...] = ()
    start: dict[str, Any] = {}
    if shared_prompt:
        full = DynamicCache(config=model.network.config)
        first = int(model.network(ids[None], past_key_values=full, use_cache=True).logits[0, -1].argmax())
        if first in model.stop or max_new_tokens == 1:
            return (first,)
        head, ids = (first,), torch.cat([ids, ids.new_tensor([first])])
        if attends:
            kept = DynamicCache(config=cut.config)
            kept.layers = [full.layers[call.layer] for call in calls if call.part != Part.MLP]
            start["past_key_values"] = kept
    elif apart and attends:
        # Without a configuration the cache grows by a layer for each attention that there is.
        start["past_key_values"] = DynamicCache()
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens - shared_prompt,
        eos_token_id=sorted(model.stop),
        pad_token_id=min(model.stop, default=0),
        # A model without attention has no cache to tell it how much it has seen.
        use_cache=attends,
    )
    output = cut.generate(ids[None], attention_mask=torch.ones_like(ids[None]), generation_config=settings, **start)
    return (*head, *output[0, len(ids) :].tolist())
