"""Divergence from the full model's predictions of a given text, for many allocations in one shared pass."""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Schedule
from oracle.engine.score import continuation_pass
from oracle.models.decoder import Decoder

__all__ = ["divergences"]


@torch.inference_mode()
def divergences(
    decoder: Decoder,
    prompt: PromptState,
    schedule: Schedule,
    continuation: Seq[int],
    *,
    shared_prompt: bool,
    piece: int,
    head_rows: int,
) -> tuple[list[float], int]:
    """Mean KL(full model || allocation) of the next-token distribution over a continuation, in nats per token.

    In scope `decode` the first token is the full model's under every allocation, and is not counted.

    Args:
        decoder: the model.
        prompt: the prompt before the continuation.
        schedule: the allocations; the last row must be the full model.
        continuation: token ids, of which all but the last are fed.
        shared_prompt: scope `decode`.
        piece: maximum number of nodes per layer call.
        head_rows: maximum number of positions per call of the vocabulary head.

    Returns:
        One value per allocation (0 where nothing is predicted), and the layer x token units executed.
    """
    if len(continuation) - shared_prompt < 1:
        return [0.0] * len(schedule.runs_AI), 0
    done, start = continuation_pass(
        decoder, prompt, schedule, continuation[:-1], shared_prompt=shared_prompt, piece=piece
    )
    nodes, node_A = torch.unique(done.node_A, return_inverse=True)
    hidden_OTD = done.hidden_OTD[nodes, start:]
    full_TD = hidden_OTD[node_A[-1]]
    total_O = hidden_OTD.new_zeros(len(nodes), dtype=torch.float64)
    # The full model's distributions of some positions at a time, then all nodes at these positions.
    for first in range(0, full_TD.shape[0], max(1, head_rows // 2)):
        place = slice(first, first + max(1, head_rows // 2))
        log_p_TV = _logits(decoder, full_TD[place]).log_softmax(-1)
        p_TV = log_p_TV.exp()
        entropy_T = (p_TV * log_p_TV).sum(-1).double()
        for node in range(len(nodes)):
            logits_TV = _logits(decoder, hidden_OTD[node, place])
            expected_T = (p_TV * logits_TV).sum(-1).double() - logits_TV.logsumexp(-1).double()
            total_O[node] += (entropy_T - expected_T).sum()
    # Rounding may put a divergence of zero slightly below it.
    values_O = (total_O / full_TD.shape[0]).clamp(min=0)
    return values_O[node_A].tolist(), done.executions * done.hidden_OTD.shape[1]


def _logits(decoder: Decoder, hidden_TD: Tensor) -> Tensor:
    return decoder.finish(hidden_TD[:, None])[:, 0].float()
