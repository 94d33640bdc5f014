"""Attention over a prompt that many rows share, without a copy of it per row.

Registered with the library as one more attention implementation, so that unmodified models can use it. The scores over
a prompt are one matrix product for all rows of that prompt; those over a row's own tokens are a small product a row;
one softmax covers both.

Shapes: G rows, H query heads, K key/value heads, N = H / K, T queries, P prompt tokens, S own tokens, D head width.
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
"""Name under which the library knows this attention."""

_cache: ContextVar[RowCache | None] = ContextVar("cache", default=None)


@contextmanager
def attending(config: Any, cache: RowCache) -> Iterator[None]:
    """Makes a model attend to the shared prompts of a cache.

    Args:
        config: the configuration that the model's attention modules read.
        cache: whose prompts are attended to.
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
    query_GHTD: Tensor,
    key_GKSD: Tensor,
    value_GKSD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of every row over its prompt and its own tokens, as the library calls it."""
    cache = _cache.get()
    assert cache is not None, "used outside of `attending`"
    cache.attended += 1
    G, H, T, D = query_GHTD.shape
    K, S = key_GKSD.shape[1], key_GKSD.shape[2]
    P, M = cache.prompt_slots, H // K * T
    scale = D**-0.5 if scaling is None else scaling
    query_GKMD = (query_GHTD * scale).reshape(G, K, M, D)
    groups = list(_groups(cache.shared_now()))
    # Prompts are right-aligned; what stands before a shorter one is hidden by the mask.
    scores_GKMX = query_GKMD.new_empty((G, K, M, P + S))
    scores_GKMX[..., P:] = torch.matmul(query_GKMD, key_GKSD.transpose(2, 3))
    for rows, prompt_key_KPD, _ in groups:
        prompt = slice(P - prompt_key_KPD.shape[1], P)
        scores_KRP = torch.bmm(_by_head(query_GKMD[rows]), prompt_key_KPD.transpose(1, 2))
        scores_GKMX[rows, ..., prompt] = scores_KRP.unflatten(1, (-1, M)).transpose(0, 1)
    if softcap is not None:
        scores_GKMX = torch.tanh(scores_GKMX / softcap) * softcap
    mask = _own_causal(T, S, query_GHTD.device) if attention_mask is None and T > 1 else attention_mask
    if mask is not None:
        _hide(scores_GKMX, mask, P, T)
    weights_GKMX = scores_GKMX.softmax(-1, dtype=torch.float32).to(value_GKSD.dtype)
    output_GKMD = torch.matmul(weights_GKMX[..., P:], value_GKSD)
    for rows, _, prompt_value_KPD in groups:
        prompt = slice(P - prompt_value_KPD.shape[1], P)
        output_KRD = torch.bmm(_by_head(weights_GKMX[rows, ..., prompt]), prompt_value_KPD)
        output_GKMD[rows] += output_KRD.unflatten(1, (-1, M)).transpose(0, 1)
    return output_GKMD.view(G, H, T, -1).transpose(1, 2), None


def _groups(shared: Seq[tuple[int, States]]) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The rows of each prompt, with its keys and values (each K P D)."""
    start = 0
    for count, (keys, values) in shared:
        yield slice(start, start + count), keys[0], values[0]
        start += count


def _by_head(part_GKMX: Tensor) -> Tensor:
    """Rows of one prompt side by side (K, G M, X), so that each head makes one product."""
    return part_GKMX.transpose(0, 1).flatten(1, 2)


def _hide(scores_GKMX: Tensor, mask: Tensor, prompt: int, queries: int) -> None:
    """Sets the scores that a mask (G|1 1 T X') hides to the lowest number.

    The mask covers the padded prompt, then the own tokens. A mask of the own tokens only leaves the prompt visible.
    """
    G, K, M, X = scores_GKMX.shape
    if mask.shape[-1] == X - prompt:
        mask = torch.cat([mask.new_ones((*mask.shape[:-1], prompt)), mask], dim=-1)
    hidden = ~mask[:, :, None, :, mask.shape[-1] - X :]
    low = torch.finfo(scores_GKMX.dtype).min
    scores_GKMX.view(G, K, M // queries, queries, X).masked_fill_(hidden, low)


def _own_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Causal mask over the own tokens (1 1 T S), the queries being the last of them."""
    ones = torch.ones((queries, keys), dtype=torch.bool, device=device)
    return ones.tril(keys - queries)[None, None]


AttentionInterface.register(SHARED, _shared_attention)
AttentionMaskInterface.register(SHARED, sdpa_mask)
