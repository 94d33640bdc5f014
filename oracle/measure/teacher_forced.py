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
    """The states of the full model's output under an allocation, from the engine's store if available.

    All tokens are fed, the last one too, as in searches, so that both find each other's states.
    """
    return engine.hidden.states(engine.encode(original.sequence), original.tokens, allocation)


def predicting(engine: Engine, states: States, depth: int, *, from_prompt: bool) -> Tensor:
    """The states after `depth` units, skipped ones included, at the positions that predict the output's tokens (T D).

    With `from_prompt` they begin with the prompt's last position, which predicts the first token; in scope `decode`
    that is the full model's under any allocation. In scope `decode-last` this position counts as a generated one.
    """
    generated_TD = states.generated.after(depth)[:-1]
    if from_prompt and engine.config.scope != "decode-last":
        return torch.cat([states.prompt.after(depth)[-1:], generated_TD])
    return generated_TD


def best_tokens(engine: Engine, original: SearchedSequence, hidden_TD: Tensor) -> Tensor:
    """The token that greedy decoding chooses after each of the states of `predicting` (T)."""
    finish, first = engine.model.decoder.finish, 1 if engine.config.scope == "decode" else 0
    prompt_T = torch.tensor(engine.encode(original.sequence), device=hidden_TD.device)
    return torch.cat(
        [
            engine.best_tokens(finish(some_TD[:, None])[:, 0], prompt_T, original.tokens, first + HEAD_ROWS * piece)
            for piece, some_TD in enumerate(hidden_TD.split(HEAD_ROWS))
        ]
    )
