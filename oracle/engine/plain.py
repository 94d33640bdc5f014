"""The naive way: one allocation at a time, by the library's own `generate` on a model cut to its layers.

Slow and simple on purpose. Whatever the engine reports is checked against this, and what lies within rounding of a
tie is decided by it.
"""

from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from oracle.engine.prompts import PromptState
from oracle.models.loading import LanguageModel
from oracle.models.truncate import truncated
from oracle.types import Allocation

__all__ = ["plain_generate"]


@torch.inference_mode()
def plain_generate(
    model: LanguageModel,
    prompt: PromptState,
    allocation: Allocation,
    *,
    max_new_tokens: int,
    shared_prompt: bool,
) -> tuple[int, ...]:
    """Greedy tokens of one allocation by plain generation, batch 1.

    In scope `decode` the cut model starts from the full model's states of the prompt, of its layers only, and
    from the full model's first token.

    Args:
        model: the full model.
        prompt: the prompt after its full-depth pass.
        allocation: the layers that run, rising.
        max_new_tokens: the most tokens to generate.
        shared_prompt: scope `decode` rather than `sequence`.
    """
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens - shared_prompt,
        eos_token_id=sorted(model.stop),
        pad_token_id=min(model.stop, default=0),
        # A model without layers has no cache to tell it how much it has seen.
        use_cache=bool(allocation),
    )
    cut: Any = truncated(model.network, allocation)
    ids = prompt.tokens
    head: tuple[int, ...] = ()
    start: dict[str, Any] = {}
    if shared_prompt:
        first = int(prompt.logits_V.argmax())
        if first in model.stop or max_new_tokens == 1:
            return (first,)
        head, ids = (first,), torch.cat([ids, ids.new_tensor([first])])
        if allocation:
            start["past_key_values"] = _prompt_cache(cut, prompt, allocation)
    output = cut.generate(ids[None], attention_mask=torch.ones_like(ids[None]), generation_config=settings, **start)
    return (*head, *output[0, len(ids) :].tolist())


def _prompt_cache(cut: PreTrainedModel, prompt: PromptState, allocation: Allocation) -> DynamicCache:
    """The library's own cache, holding the prompt's full-depth states of the allocated layers."""
    cache = DynamicCache(config=cut.config)
    for position, layer in enumerate(allocation):
        keys, values = prompt.cache[layer]
        cache.update(keys.clone(), values.clone(), position)
    return cache
