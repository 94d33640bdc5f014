"""Attention in which many rows share one prompt's keys and values, without a copy per row.

Registered with the library as an attention implementation, so unmodified models can use it. Scores over a prompt are
one matrix product for all of its rows; scores over a row's own tokens are one small product per row; a single softmax
covers both. In shapes, X is the rows of one prompt x Q, Y the slots of the prompt.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from oracle.models.kv_cache import RowCache, States

__all__ = ["SHARED", "attending"]

SHARED = "layer_oracle"
"""Registered name of this attention implementation."""

_cache: ContextVar[RowCache | None] = ContextVar("cache", default=None)


@contextmanager
def attending(config: Any, cache: RowCache) -> Iterator[None]:
    """Switches a model to attention over a cache's shared prompts while the context is open.

    Args:
        config: the configuration read by the model's attention modules.
        cache: holds the prompts.
    """
    before, token = config._attn_implementation, _cache.set(cache)
    config._attn_implementation = SHARED
    try:
        yield
    finally:
        config._attn_implementation = before
        _cache.reset(token)


def _shared_attention(
    module: nn.Module,
    query_GHTW: Tensor,
    key_GKSW: Tensor,
    value_GKSW: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of every row over its prompt and its own tokens, with the library's signature."""
    cache = _cache.get()
    assert cache is not None, "used outside of `attending`"
    cache.attended += 1
    G, H, T, W = query_GHTW.shape
    K, S = key_GKSW.shape[1], key_GKSW.shape[2]
    Y, Q = cache.prompt_slots, H // K * T
    scale = W**-0.5 if scaling is None else scaling
    query_GKQW = (query_GHTW * scale).reshape(G, K, Q, W)
    groups = list(_groups(cache.shared_now()))
    # Prompts are right-aligned; the mask hides the slots before shorter ones.
    scores_GKQS = query_GKQW.new_empty((G, K, Q, Y + S))
    scores_GKQS[..., Y:] = torch.matmul(query_GKQW, key_GKSW.transpose(2, 3))
    for rows, prompt_key_KYW, _ in groups:
        prompt = slice(Y - prompt_key_KYW.shape[1], Y)
        scores_KXY = torch.bmm(_by_head(query_GKQW[rows]), prompt_key_KYW.transpose(1, 2))
        scores_GKQS[rows, ..., prompt] = scores_KXY.unflatten(1, (-1, Q)).transpose(0, 1)
    if softcap is not None:
        scores_GKQS = torch.tanh(scores_GKQS / softcap) * softcap
    mask = _own_causal(T, S, query_GHTW.device) if attention_mask is None and T > 1 else attention_mask
    if mask is not None:
        _hide(scores_GKQS, mask, Y, T)
    weights_GKQS = scores_GKQS.softmax(-1, dtype=torch.float32).to(value_GKSW.dtype)
    output_GKQW = torch.matmul(weights_GKQS[..., Y:], value_GKSW)
    for rows, _, prompt_value_KYW in groups:
        prompt = slice(Y - prompt_value_KYW.shape[1], Y)
        output_KXW = torch.bmm(_by_head(weights_GKQS[rows, ..., prompt]), prompt_value_KYW)
        output_GKQW[rows] += output_KXW.unflatten(1, (-1, Q)).transpose(0, 1)
    return output_GKQW.view(G, H, T, -1).transpose(1, 2), None


def _groups(shared: Seq[tuple[int, States]]) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of each prompt, with its keys and values (each K Y W)."""
    start = 0
    for count, (keys, values) in shared:
        yield slice(start, start + count), keys[0], values[0]
        start += count


def _by_head(part_GKQX: Tensor) -> Tensor:
    """Rows of one prompt concatenated (K, G Q, last axis), so each head needs one product."""
    return part_GKQX.transpose(0, 1).flatten(1, 2)


def _hide(scores_GKQS: Tensor, mask: Tensor, prompt: int, queries: int) -> None:
    """Sets scores hidden by a mask (G or 1, 1, T, slots) to the lowest number of their dtype.

    The mask covers the padded prompt, then the own tokens. A mask of the own tokens alone leaves the prompt visible.
    """
    G, K, Q, S = scores_GKQS.shape
    if mask.shape[-1] == S - prompt:
        mask = torch.cat([mask.new_ones((*mask.shape[:-1], prompt)), mask], dim=-1)
    hidden = ~mask[:, :, None, :, mask.shape[-1] - S :]
    low = torch.finfo(scores_GKQS.dtype).min
    scores_GKQS.view(G, K, Q // queries, queries, S).masked_fill_(hidden, low)


def _own_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Causal mask over the own tokens (1 1 T S); the queries are the last T."""
    ones = torch.ones((queries, keys), dtype=torch.bool, device=device)
    return ones.tril(keys - queries)[None, None]


AttentionInterface.register(SHARED, _shared_attention)
AttentionMaskInterface.register(SHARED, sdpa_mask)
