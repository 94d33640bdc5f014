"""Tiny models with settings of generation, and what the untouched library generates under them."""

from collections.abc import Mapping
from typing import Any

import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from transformers import GenerationConfig
from zoo import tiny

from oracle.models import LanguageModel, truncated

FULL = tuple(range(LAYERS))
MASKS = [(0, 2), (1, 2, 3), (0, 1, 3, 4), (4,), (), (0, 1, 2, 4), (2, 3), FULL]
PROMPTS = ["Hello there, hello there.", "A somewhat longer prompt, so that rows need padding.", "x"]
NEW = 12
ENDS = [256, 0, 54, 70, 43, 113, 38]
"""End tokens that the tiny Llama's outputs reach."""


def model_with(settings: Mapping[str, Any], family: str | None = None) -> LanguageModel:
    network = tiny_llama() if family is None else tiny(family)
    model = LanguageModel(name=family or "tiny", network=network, tokenizer=tiny_tokenizer())
    network.generation_config = GenerationConfig(**{"eos_token_id": 256, **settings})
    return model


def library(model: LanguageModel, prompt_T: torch.Tensor, mask: tuple[int, ...], new: int = NEW) -> tuple[int, ...]:
    """What `generate(do_sample=False)` gives under the model's own settings, on the model or the cut model."""
    network = model.network if mask == FULL else truncated(model.network, mask)
    ids = prompt_T[None]
    more = {"tokenizer": model.tokenizer} if network.generation_config.stop_strings else {}
    if not mask:
        more["use_cache"] = False
    found = network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=0, **more
    )
    return tuple(found[0, len(prompt_T) :].tolist())
