"""Teacher-forced passes over the outputs of the full model: hidden states, and the tokens they predict."""

import torch
from torch import Tensor

from oracle.engine import Engine
from oracle.engine.hidden_states import States
from oracle.pipeline.reload import SearchedSequence
from oracle.types import Allocation

__all__ = ["best_tokens", "predicting", "states_of"]


HEAD_ROWS = 64
"""Positions that pass through the vocabulary head at once."""


def states_of(engine: Engine, original: SearchedSequence, allocation: Allocation) -> States:
    """The states of the full model's output under an allocation, from the engine's store if available.

    All tokens are fed, the last one too, as in searches, so that both find each other's states.
    """
    return engine.hidden.states(engine.encode(original.sequence), original.tokens, allocation)


def predicting(states: States, depth: int, *, from_prompt: bool) -> Tensor:
    """The states after `depth` units, skipped ones included, at the positions that predict the output's tokens (T D).

    With `from_prompt` they begin with the prompt's last position, which predicts the first token; in scope `decode`
    that is the full model's under any allocation.
    """
    generated_TD = states.generated.after(depth)[:-1]
    return torch.cat([states.prompt.after(depth)[-1:], generated_TD]) if from_prompt else generated_TD


def best_tokens(engine: Engine, original: SearchedSequence, hidden_TD: Tensor, *, from_prompt: bool) -> Tensor:
    """The token that greedy decoding chooses after each of the states of `predicting` (T)."""
    finish, first = engine.model.decoder.finish, 0 if from_prompt else 1
    prompt_T = torch.tensor(engine.encode(original.sequence), device=hidden_TD.device)
    return torch.cat(
        [
            engine.best_tokens(finish(some_TD[:, None])[:, 0], prompt_T, original.tokens, first + HEAD_ROWS * piece)
            for piece, some_TD in enumerate(hidden_TD.split(HEAD_ROWS))
        ]
    )
