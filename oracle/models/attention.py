"""Attention over a prompt that many rows share, without a copy of it per row.

Registered with the library as one more attention implementation, so that unmodified models can use it. The scores over
a prompt are one matrix product for all rows of that prompt; those over a row's own tokens are a small product a row;
one softmax covers both.

Shapes: G rows, H query heads, K key/value heads, N = H / K, T queries, P prompt tokens, S own tokens, D head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from oracle.models.cache import RowCache

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
    G, H, T, D = query_GHTD.shape
    K, S = key_GKSD.shape[1], key_GKSD.shape[2]
    scale = D**-0.5 if scaling is None else scaling
    query_GKMD = (query_GHTD * scale).reshape(G, K, H // K * T, D)  # M = N T
    output_GKMD = torch.empty((G, K, H // K * T, value_GKSD.shape[3]), dtype=value_GKSD.dtype, device=query_GHTD.device)
    mask = _own_causal(T, S, query_GHTD.device) if attention_mask is None and T > 1 else attention_mask
    start = 0
    for count, prompt in cache.shared_now():
        rows = slice(start, start + count)
        start += count
        masks = mask if mask is None or mask.shape[0] == 1 else mask[rows]
        output_GKMD[rows] = _group(query_GKMD[rows], key_GKSD[rows], value_GKSD[rows], prompt, masks, (T, softcap))
    return output_GKMD.view(G, H, T, -1).transpose(1, 2), None


def _group(
    query_GKMD: Tensor,
    key_GKSD: Tensor,
    value_GKSD: Tensor,
    prompt: tuple[Tensor, Tensor],
    mask: Tensor | None,
    settings: tuple[int, float | None],
) -> Tensor:
    """Attention of rows that share one prompt; its states are 1 K P D."""
    T, softcap = settings
    G, K, M, D = query_GKMD.shape
    prompt_key_KPD, prompt_value_KPD = prompt[0][0], prompt[1][0]
    P = prompt_key_KPD.shape[1]
    query_KRD = query_GKMD.transpose(0, 1).reshape(K, G * M, D)
    prompt_scores = torch.bmm(query_KRD, prompt_key_KPD.transpose(1, 2)).view(K, G, M, P).transpose(0, 1)
    own_scores = torch.matmul(query_GKMD, key_GKSD.transpose(2, 3))
    scores_GKMX = torch.cat([prompt_scores, own_scores], dim=-1)
    if softcap is not None:
        scores_GKMX = torch.tanh(scores_GKMX / softcap) * softcap
    if mask is not None:
        scores_GKMX = _masked(scores_GKMX, mask, P, T)
    weights_GKMX = scores_GKMX.softmax(-1, dtype=torch.float32).to(value_GKSD.dtype)
    weights_KRP = weights_GKMX[..., :P].transpose(0, 1).reshape(K, G * M, P)
    output_GKMD = torch.bmm(weights_KRP, prompt_value_KPD).view(K, G, M, -1).transpose(0, 1)
    return output_GKMD + torch.matmul(weights_GKMX[..., P:], value_GKSD)


def _masked(scores_GKMX: Tensor, mask: Tensor, prompt: int, queries: int) -> Tensor:
    """Scores with what a mask (G|1 1 T X') hides at minus infinity.

    The mask covers the padded prompt, then the own tokens; a prompt stands at the right end of its part. A mask of the
    own tokens only leaves the prompt visible.
    """
    G, K, M, X = scores_GKMX.shape
    own = X - prompt
    if mask.shape[-1] == own:
        visible = torch.cat([mask.new_ones((*mask.shape[:-1], prompt)), mask], dim=-1)
    else:
        visible = mask[..., mask.shape[-1] - X :]
    scores = scores_GKMX.view(G, K, M // queries, queries, X)
    low = torch.finfo(scores.dtype).min
    return scores.masked_fill(~visible[:, :, None], low).view(G, K, M, X)


def _own_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Causal mask over the own tokens (1 1 T S), the queries being the last of them."""
    ones = torch.ones((queries, keys), dtype=torch.bool, device=device)
    return ones.tril(keys - queries)[None, None]


AttentionInterface.register(SHARED, _shared_attention)
AttentionMaskInterface.register(SHARED, sdpa_mask)
