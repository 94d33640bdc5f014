"""Measurements of a trained model: held-out loss, executed density, FLOPs, speed, one-shot tasks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from oracle.skiplayer.model import Model
from oracle.skiplayer.router import Gates
from oracle.skiplayer.tasks import Question
from oracle.skiplayer.text import Tokenizer, Tokens

__all__ = ["Measured", "answers", "flops_per_token", "measure"]

ROWS = 16
"""Rows per batch."""

MakeGates = Callable[[], Gates | None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of a model on held-out rows.

    Attributes:
        loss_R: cross-entropy per row, in nats/token.
        density_U: share of the tokens that ran each unit.
        flops: FLOPs per token, counted during the pass: matrix products and attention as computed.
        tokens_per_second: speed of the pass on this machine.
    """

    loss_R: NDArray[np.float64]
    density_U: NDArray[np.float64]
    flops: float
    tokens_per_second: float

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats/token."""
        return float(self.loss_R.mean())

    @property
    def density(self) -> float:
        """Mean share of the units that a token ran."""
        return float(self.density_U.mean())


@torch.inference_mode()
def measure(model: Model, gates: MakeGates, rows_RT: Tokens) -> Measured:
    """Measures a model in inference mode on held-out rows (B T+1)."""
    losses, rates, made = [], [], gates()
    begun = time.perf_counter()
    for batch in _batches(model, rows_RT):
        passed = model(batch[:, :-1], made)
        logits_RTV = model.logits(passed.hidden_RTD)
        loss_RT = functional.cross_entropy(logits_RTV.transpose(1, 2), batch[:, 1:], reduction="none")
        losses.append(loss_RT.double().mean(1).cpu().numpy())
        rates += [[1.0 if pick.rate is None else float(pick.rate) for pick in passed.picks]] * len(batch)
    seconds = time.perf_counter() - begun
    return Measured(
        loss_R=np.concatenate(losses),
        density_U=np.asarray(rates, dtype=np.float64).mean(0),
        flops=flops_per_token(model, gates, rows_RT),
        tokens_per_second=rows_RT[:, 1:].size / seconds,
    )


@torch.inference_mode()
def flops_per_token(model: Model, gates: MakeGates, rows_RT: Tokens) -> float:
    """FLOPs executed per token in a pass over rows (B T+1)."""
    made = gates()
    # The counter does not count fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for batch in _batches(model, rows_RT):
            model.logits(model(batch[:, :-1], made).hidden_RTD)
    return counter.get_total_flops() / rows_RT[:, 1:].size


def answers(model: Model, gates: MakeGates, asked: list[Question], tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Whether each question is answered correctly: its right choice has the highest log-likelihood per token."""
    right = [False] * len(asked)
    # Batched by task because questions of a task have similar lengths.
    for task in dict.fromkeys(one.task for one in asked):
        places = [place for place, one in enumerate(asked) if one.task == task]
        pairs = [(asked[place].prompt, choice) for place in places for choice in asked[place].choices]
        likelihoods = iter(_log_likelihoods(model, gates(), pairs, tokenizer))
        for place in places:
            own = [next(likelihoods) for _ in asked[place].choices]
            right[place] = int(np.argmax(own)) == asked[place].answer
    return np.array(right, dtype=np.bool_)


@torch.inference_mode()
def _log_likelihoods(
    model: Model, gates: Gates | None, pairs: list[tuple[str, str]], tokenizer: Tokenizer
) -> list[float]:
    """Mean log-likelihood (nats/token) of a continuation per prompt; prompts are truncated at the start to fit."""
    longest = model.rotation_TW.shape[0]
    ids = [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in pairs]
    cut = [(prompt[-(longest + 1 - len(answer)) :], answer) for prompt, answer in ids]
    rows_RT = np.zeros((len(cut), max(len(prompt) + len(answer) for prompt, answer in cut)), dtype=np.int64)
    asked_RT = np.zeros(rows_RT.shape, dtype=np.bool_)
    for row, (prompt, answer) in enumerate(cut):
        rows_RT[row, : len(prompt) + len(answer)] = prompt + answer
        asked_RT[row, len(prompt) : len(prompt) + len(answer)] = True
    found: list[float] = []
    for batch, asked in zip(_batches(model, rows_RT), _batches(model, asked_RT), strict=True):
        logits_RTV = model.logits(model(batch[:, :-1], gates).hidden_RTD)
        loss_RT = functional.cross_entropy(logits_RTV.transpose(1, 2), batch[:, 1:], reduction="none")
        found += (-(loss_RT * asked[:, 1:]).sum(1) / asked.sum(1)).tolist()
    return found


def _batches(model: Model, rows_RT: NDArray[Any]) -> list[torch.Tensor]:
    return list(torch.from_numpy(rows_RT).to(model.head.weight.device).split(ROWS))
