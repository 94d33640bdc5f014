"""Teacher-forced log-likelihood of given texts under many allocations, one pass each.

Shapes: R rows, T tokens, V vocabulary.
"""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from oracle.engine.decode import Request
from oracle.engine.rows import RowBatch
from oracle.models.decoder import Decoder

__all__ = ["log_likelihoods"]

HEAD_ROWS = 256
"""Positions that go through the vocabulary head at once: bounds its memory."""


@torch.inference_mode()
def log_likelihoods(
    decoder: Decoder, requests: Seq[Request], continuations: Seq[Seq[int]], *, shared_prompt: bool
) -> list[float]:
    """Mean log-likelihood of a continuation after a prompt, in nats per token.

    Args:
        decoder: the model.
        requests: a prompt and an allocation a row.
        continuations: the token ids to score, at least one a row.
        shared_prompt: scope `decode`, in which the first token is predicted by the full model.
    """
    lengths = [len(ids) for ids in continuations]
    longest = max(lengths)
    targets_RT = torch.zeros((len(requests), longest), dtype=torch.long, device=decoder.device)
    for row, ids in enumerate(continuations):
        targets_RT[row, : len(ids)] = torch.tensor(ids, device=decoder.device)
    prompts = [prompt for prompt, _ in requests]
    batch = RowBatch(
        decoder,
        prompts,
        [allocation for _, allocation in requests],
        new_tokens=longest,
        shared_prompt=shared_prompt,
    )
    first_RV = (
        torch.stack([prompt.logits_V for prompt in prompts])
        if shared_prompt
        else decoder.finish(batch.run_prompts())[:, 0]
    )
    scores_RT = torch.zeros(targets_RT.shape, dtype=torch.float64, device=decoder.device)
    scores_RT[:, 0] = _gold(first_RV, targets_RT[:, 0])
    if longest > 1:
        hidden_RTD = batch.forward(targets_RT[:, :-1])
        wanted = torch.arange(1, longest, device=decoder.device) < torch.tensor(
            lengths, device=decoder.device
        ).unsqueeze(1)
        rows, steps = wanted.nonzero(as_tuple=True)
        for row, step in zip(rows.split(HEAD_ROWS), steps.split(HEAD_ROWS), strict=True):
            logits = decoder.finish(hidden_RTD[row, step].unsqueeze(1))[:, 0]
            scores_RT[row, step + 1] = _gold(logits, targets_RT[row, step + 1])
    return [total / count for total, count in zip(scores_RT.sum(1).tolist(), lengths, strict=True)]


def _gold(logits_RV: Tensor, targets_R: Tensor) -> Tensor:
    """Log-probability of each row's target, in nats and double precision."""
    scores_RV = logits_RV.float().log_softmax(-1)
    return scores_RV.gather(1, targets_R[:, None])[:, 0].double()
