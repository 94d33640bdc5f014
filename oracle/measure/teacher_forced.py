"""Teacher-forced passes over the outputs of the full model: hidden states, and the tokens they predict."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TypeVar

import torch
from torch import Tensor

from oracle.engine import Engine
from oracle.engine.hidden_states import States
from oracle.executors import over_cores
from oracle.pipeline.reload import SearchedSequence
from oracle.types import Allocation
from oracle.utils.progress import Advance

__all__ = ["best_tokens", "per_sequence", "predicting", "states_of"]

Result = TypeVar("Result")

HEAD_ROWS = 64
"""Positions that pass through the vocabulary head at once."""


def per_sequence(
    engine: Engine, originals: Seq[SearchedSequence], task: Callable[[SearchedSequence], Result], advance: Advance
) -> list[Result]:
    """The result of a task per sequence, in order, computed on all free cores.

    Args:
        engine: of the loaded model.
        originals: the sequences.
        task: computes one of them.
        advance: told of each sequence.
    """
    found: dict[int, Result] = {}
    device, memory = engine.model.network.device, engine.config.memory
    for place, result in over_cores(task, originals, device=device, memory_mib=memory):
        found[place] = result
        advance(1, originals[place].sequence.id)
    return [found[place] for place in range(len(originals))]


def states_of(engine: Engine, original: SearchedSequence, allocation: Allocation) -> States:
    """The states of the full model's output under an allocation, out of the engine's store where it has them.

    All tokens are fed, the last one too, as searches do: so they find each other's states.
    """
    return engine.hidden.states(engine.encode(original.sequence.prompt), original.tokens, allocation)


def predicting(states: States, depth: int, *, from_prompt: bool) -> Tensor:
    """The states after so many units at the positions that predict the tokens of the output (T D).

    Args:
        states: of all tokens of the output.
        depth: units passed, skipped ones included.
        from_prompt: whether to begin with the prompt's last position, which predicts the first token; in scope `decode`
            that is the full model's whatever the allocation.
    """
    generated_TD = states.generated.after(depth)[:-1]
    return torch.cat([states.prompt.after(depth)[-1:], generated_TD]) if from_prompt else generated_TD


def best_tokens(engine: Engine, hidden_TD: Tensor) -> Tensor:
    """The likeliest token after each state (T)."""
    finish = engine.model.decoder.finish
    return torch.cat([finish(some_TD[:, None])[:, 0].argmax(-1) for some_TD in hidden_TD.split(HEAD_ROWS)])
