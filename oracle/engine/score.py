"""Teacher-forced scoring of given texts under many allocations: one pass each, shared where they agree.

In shapes, X is the positions of all nodes.
"""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from oracle.engine.prefix_sharing import SharedPass, shared_pass
from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Schedule
from oracle.models.decoder import Decoder

__all__ = ["continuation_pass", "log_likelihoods"]


def continuation_pass(
    decoder: Decoder, prompt: PromptState, schedule: Schedule, tokens: Seq[int], *, shared_prompt: bool, piece: int
) -> tuple[SharedPass, int]:
    """Feeds the tokens of a continuation that predict another one, after the prompt.

    Returns:
        The pass, and the first of its positions that predicts: in scope `decode` position 0 predicts the second token
        (the first is the full model's), in scope `sequence` the prompt's last position predicts the first.
    """
    fed = prompt.tokens.new_tensor(list(tokens))
    if shared_prompt:
        return shared_pass(decoder, schedule, fed, prompt, piece=piece), 0
    return shared_pass(decoder, schedule, torch.cat([prompt.tokens, fed]), None, piece=piece), prompt.length - 1


@torch.inference_mode()
def log_likelihoods(
    decoder: Decoder,
    prompt: PromptState,
    schedule: Schedule,
    continuation: Seq[int],
    *,
    shared_prompt: bool,
    piece: int,
    head_rows: int,
) -> tuple[list[float], int]:
    """Mean log-likelihood of a continuation under every allocation, in nats per token.

    Args:
        decoder: the model.
        prompt: what precedes the continuation.
        schedule: the allocations.
        continuation: the token ids to score, at least one.
        shared_prompt: scope `decode`, in which the first token is predicted by the full model.
        piece: nodes that pass through a layer at once.
        head_rows: positions that pass through the vocabulary head at once.

    Returns:
        The values, and the layer x token units executed.
    """
    targets_T = prompt.tokens.new_tensor(list(continuation))
    first = _gold(prompt.logits_V[None], targets_T[:1]).sum() if shared_prompt else targets_T.new_zeros(()).double()
    targets_T = targets_T[1:] if shared_prompt else targets_T
    if len(targets_T) == 0:
        return [float(first)] * len(schedule.runs_AI), 0
    done, start = continuation_pass(
        decoder, prompt, schedule, continuation[:-1], shared_prompt=shared_prompt, piece=piece
    )
    nodes, node_A = torch.unique(done.node_A, return_inverse=True)
    hidden_XD = done.hidden_OTD[nodes, start:].flatten(0, 1)
    targets_X = targets_T.repeat(len(nodes))
    gold_X = torch.cat(
        [
            _gold(decoder.finish(hidden[:, None])[:, 0], target)
            for hidden, target in zip(hidden_XD.split(head_rows), targets_X.split(head_rows), strict=True)
        ]
    )
    totals_O = gold_X.view(len(nodes), -1).sum(1) + first
    values = (totals_O[node_A] / len(continuation)).tolist()
    return values, done.executions * done.hidden_OTD.shape[1]


def _gold(logits_RV: Tensor, targets_R: Tensor) -> Tensor:
    """Log-probability of each row's target, in nats and double precision."""
    logits_RV = logits_RV.float()
    gold_R = logits_RV.gather(1, targets_R[:, None])[:, 0]
    return gold_R.double() - logits_RV.logsumexp(-1).double()
