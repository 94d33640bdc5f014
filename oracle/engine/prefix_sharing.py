"""One pass over given tokens for many allocations, every common beginning computed once.

Allocations that agree up to a layer, with the same token history, have the same hidden state there. They share one
node; a layer runs once for each node that some allocation leaves through it. All masks of at most k layers then cost
one layer execution a mask, not k.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Mask, Schedule
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import PassCache
from oracle.models.layer_runner import Step

__all__ = ["SharedPass", "shared_pass"]


@dataclass(frozen=True, kw_only=True)
class SharedPass:
    """What a pass ends with.

    Attributes:
        hidden_OTD: hidden states after the last layer, one entry a distinct allocation; unused entries may follow.
        node_A: the entry of each allocation.
        executions: layers run, counted once per node: layer x token units are this times T.
    """

    hidden_OTD: Tensor
    node_A: Tensor
    executions: int


@torch.inference_mode()
def shared_pass(
    decoder: Decoder, schedule: Schedule, tokens_T: Tensor, prompt: PromptState | None, *, piece: int
) -> SharedPass:
    """Runs the same tokens through every allocation.

    Args:
        decoder: the model.
        schedule: the allocations.
        tokens_T: token ids, the same for all.
        prompt: whose full-depth states precede the tokens (scope `decode`); None if nothing precedes them.
        piece: how many nodes pass through a layer at once: bounds the activations.
    """
    runs_AI = schedule.runs_AI
    cache = PassCache(decoder.layers, prompt.cache if prompt else None, shared=decoder.shares_prompts)
    start = cache.length
    positions = torch.arange(start, start + len(tokens_T), device=decoder.device)[None]
    with decoder.sharing(cache) if prompt and decoder.shares_prompts else nullcontext():
        steps = _Steps(decoder, cache, tokens_T[None], positions)
        hidden_OTD = steps.of(1).hidden_RTD.new_empty(
            (len(runs_AI) + 1, len(tokens_T), steps.of(1).hidden_RTD.shape[2])
        )
        hidden_OTD[0] = steps.of(1).hidden_RTD[0]
        node_A = np.zeros(len(runs_AI), dtype=np.int64)
        executions = 0
        for index, source_G, target_G in _plan(runs_AI, node_A):
            executions += len(source_G)
            source, target = (torch.from_numpy(index).to(decoder.device) for index in (source_G, target_G))
            for here, there in zip(source.split(piece), target.split(piece), strict=True):
                step = steps.of(len(here))
                hidden_OTD[there] = decoder.run(schedule.calls[index], hidden_OTD.index_select(0, here), step)
    return SharedPass(hidden_OTD=hidden_OTD, node_A=torch.from_numpy(node_A).to(decoder.device), executions=executions)


def _plan(runs_AI: Mask, node_A: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """For each step the nodes that run it and where their results go; keeps `node_A` up to date.

    A result takes its source's place unless some allocation stays there, so that there are never more nodes than
    distinct allocations.
    """
    nodes = 1
    for step in range(runs_AI.shape[1]):
        runs_A = runs_AI[:, step]
        if not runs_A.any():
            continue
        source_G, inverse = np.unique(node_A[runs_A], return_inverse=True)
        stays_O = np.zeros(nodes, dtype=np.bool_)
        stays_O[node_A[~runs_A]] = True
        target_G = source_G.copy()
        new = stays_O[source_G]
        target_G[new] = np.arange(nodes, nodes + new.sum())
        nodes += int(new.sum())
        yield step, source_G, target_G
        node_A[runs_A] = target_G[inverse]


class _Steps:
    """What the model computes before its layers, for batches of equal rows.

    Where arguments broadcast over rows one row serves all batches; other models get theirs by size.
    """

    def __init__(self, decoder: Decoder, cache: PassCache, tokens_1T: Tensor, positions: Tensor) -> None:
        self._begin = lambda rows: decoder.begin(tokens_1T.expand(rows, -1), cache=cache, positions_RT=positions)
        self._broadcasts = decoder.shares_prompts
        self._made: dict[int, Step] = {}

    def of(self, rows: int) -> Step:
        """The step for a batch of `rows` rows."""
        key = 1 if self._broadcasts else rows
        if key not in self._made:
            self._made[key] = self._begin(key)
        return self._made[key]
