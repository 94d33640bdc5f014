"""Teacher-forced scoring of given texts under many allocations: one pass each, shared where they agree.

In shapes, X is the positions of all nodes.
"""

from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.engine.prefix_sharing import SharedPass, shared_pass
from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Schedule
from oracle.models.decoder import Decoder

__all__ = ["ContinuationScore", "continuation_pass", "continuation_scores"]


class ContinuationScore(NamedTuple):
    """A continuation under one allocation, by the model's own probabilities.

    Attributes:
        mean: mean log-likelihood, in nats per token.
        greedy: whether each of its tokens is the likeliest one at its place.
    """

    mean: float
    greedy: bool


def continuation_pass(
    decoder: Decoder, prompt: PromptState, schedule: Schedule, tokens: Seq[int], *, piece: int
) -> tuple[SharedPass, int]:
    """Feeds the tokens of a continuation that predict another one, after the prompt.

    Returns:
        The pass, and the first of its positions that predicts: in scope `decode` position 0 predicts the second token
        (the first is the full model's), in other scopes the prompt's last position predicts the first.
    """
    fed = torch.cat([prompt.rest, prompt.rest.new_tensor(list(tokens))])
    before = prompt if prompt.full_depth else None
    return shared_pass(decoder, schedule, fed, before, piece=piece), max(0, prompt.own - 1)


@torch.inference_mode()
def continuation_scores(
    decoder: Decoder,
    prompt: PromptState,
    schedule: Schedule,
    continuation: Seq[int],
    *,
    piece: int,
    head_rows: int,
) -> tuple[list[ContinuationScore], int]:
    """Log-likelihood of a continuation under every allocation.

    In scope `decode` its first token is predicted by the full model.

    Args:
        decoder: the model.
        prompt: what precedes the continuation.
        schedule: the allocations.
        continuation: the token ids to score, at least one.
        piece: nodes that pass through a layer at once.
        head_rows: positions that pass through the vocabulary head at once.

    Returns:
        One score per allocation, and the layer x token units executed.
    """
    targets_T = prompt.tokens.new_tensor(list(continuation))
    first, first_is_best = targets_T.new_zeros(()).double(), True
    if prompt.given:
        gold_T, best_T = _gold(prompt.logits_V[None], targets_T[:1])
        first, first_is_best = gold_T.sum(), bool(best_T.all())
        targets_T = targets_T[1:]
    if len(targets_T) == 0:
        return [ContinuationScore(float(first), first_is_best)] * len(schedule.runs_AI), 0
    done, start = continuation_pass(decoder, prompt, schedule, continuation[:-1], piece=piece)
    nodes, node_A = torch.unique(done.node_A, return_inverse=True)
    hidden_XD = done.hidden_OTD[nodes, start:].flatten(0, 1)
    targets_X = targets_T.repeat(len(nodes))
    parts = [
        _gold(decoder.finish(hidden[:, None])[:, 0], target)
        for hidden, target in zip(hidden_XD.split(head_rows), targets_X.split(head_rows), strict=True)
    ]
    gold_X, best_X = (torch.cat(part) for part in zip(*parts, strict=True))
    totals_O = gold_X.view(len(nodes), -1).sum(1) + first
    greedy_O = best_X.view(len(nodes), -1).all(1) & first_is_best
    means, greedy = (totals_O[node_A] / len(continuation)).tolist(), greedy_O[node_A].tolist()
    scores = [ContinuationScore(*pair) for pair in zip(means, greedy, strict=True)]
    return scores, done.executions * done.hidden_OTD.shape[1]


def _gold(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's target, in nats and double precision, and whether it is the likeliest token."""
    logits_RV = logits_RV.float()
    gold_R = logits_RV.gather(1, targets_R[:, None])[:, 0]
    return gold_R.double() - logits_RV.logsumexp(-1).double(), logits_RV.argmax(-1) == targets_R
