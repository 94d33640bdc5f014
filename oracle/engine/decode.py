"""Greedy decoding of many allocations as one batch.

Shapes: R rows, T tokens, V vocabulary.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.rows import RowBatch
from oracle.models.decoder import Decoder
from oracle.types import Allocation

__all__ = ["Generation", "Request", "greedy_decode"]

Request = tuple[PromptState, Allocation]
"""One row to decode: a prompt and the layers that run."""

SHRINK_BELOW = 0.8
"""Finished rows leave once fewer than this share of the rows are alive: moving the cache costs a copy."""


Hopeless = Callable[[int, Seq[int]], bool]
"""Whether a request (by index) with these tokens so far cannot reach its threshold any more."""

BLOCK = 64
"""Vocabulary entries per block when the two best logits are looked for."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A greedy output.

    Attributes:
        tokens: generated ids, the stop token included if it was reached.
        finished: whether a stop token ended it.
        margin: smallest difference between the two best logits over all steps.
        dropped: whether it was given up unfinished because it could not reach its threshold any more.
    """

    tokens: tuple[int, ...]
    finished: bool
    margin: float
    dropped: bool = False


@torch.inference_mode()
def greedy_decode(
    decoder: Decoder,
    requests: Seq[Request],
    *,
    max_new_tokens: int,
    stop: frozenset[int],
    shared_prompt: bool,
    hopeless: Hopeless = lambda request, tokens: False,
) -> list[Generation]:
    """Decodes a batch of rows, each through its own layers, until all have stopped.

    Args:
        decoder: the model.
        requests: the rows; several prompts may share a batch.
        max_new_tokens: the most tokens a row may generate.
        stop: token ids that end an output.
        shared_prompt: scope `decode` (the prompt's full-depth states are shared, and the first token is the
            full model's) rather than `sequence`.
        hopeless: asked after each token whether a row may be dropped.
    """
    prompts = [prompt for prompt, _ in requests]
    batch = RowBatch(
        decoder,
        prompts,
        [allocation for _, allocation in requests],
        new_tokens=max_new_tokens,
        shared_prompt=shared_prompt,
    )
    if shared_prompt:
        logits_RV = torch.stack([prompt.logits_V for prompt in prompts])
    else:
        logits_RV = decoder.finish(batch.run_prompts())[:, 0]
    tokens: list[list[int]] = [[] for _ in requests]
    margins = [float("inf")] * len(requests)
    dropped = [False] * len(requests)
    alive = list(range(len(requests)))  # request of each row of the batch; -1 once it has stopped
    while True:
        best_R, margin_R = _best(logits_RV)
        for row, (token, margin) in enumerate(zip(best_R.tolist(), margin_R.tolist(), strict=True)):
            request = alive[row]
            if request < 0:
                continue
            tokens[request].append(token)
            margins[request] = min(margins[request], margin)
            if token in stop or len(tokens[request]) == max_new_tokens:
                alive[row] = -1
            elif hopeless(request, tokens[request]):
                dropped[request] = True
                alive[row] = -1
        keep = [row for row, request in enumerate(alive) if request >= 0]
        if not keep:
            break
        if len(keep) < SHRINK_BELOW * len(alive):
            batch.select(keep)
            alive, best_R = [alive[row] for row in keep], best_R[keep]
        logits_RV = decoder.finish(batch.forward(best_R[:, None]))[:, 0]
    return [
        Generation(tokens=tuple(ids), finished=ids[-1] in stop, margin=margin, dropped=lost)
        for ids, margin, lost in zip(tokens, margins, dropped, strict=True)
    ]


def _best(logits_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row and its lead over the second, in logits.

    A maximum per block of the vocabulary first: several times faster than the two largest of a whole row.
    """
    rows, vocabulary = logits_RV.shape
    blocks = vocabulary // BLOCK
    head_RBX = logits_RV[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    tail_RX = logits_RV[:, blocks * BLOCK :]
    peaks_RB = head_RBX.amax(-1)
    # The two best tokens stand in the two best blocks, or in the rest that fills no block.
    best_blocks = peaks_RB.topk(min(2, blocks), dim=-1).indices
    chosen = head_RBX.gather(1, best_blocks[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    ids = (best_blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits_RV.device)).flatten(1)
    tail_ids = torch.arange(blocks * BLOCK, vocabulary, device=logits_RV.device).expand(rows, -1)
    values, where = torch.cat([chosen, tail_RX], dim=-1).topk(2, dim=-1)
    tokens_R = torch.cat([ids, tail_ids], dim=-1).gather(1, where[:, :1])[:, 0]
    return tokens_R, values[:, 0] - values[:, 1]
