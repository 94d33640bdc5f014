"""Training of gates on a frozen model, teacher-forced on the full model's own outputs.

Every layer is computed for every token, and a straight-through gate mixes its output with its input; keys and values
are those of the un-updated state, as in the policy `propagate`. The prompt's come from its pass at full depth. In
shapes, X is the tokens to predict.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gumbel_softmax

from oracle.controllers.prompts import Example
from oracle.controllers.training_set import TrainingSet
from oracle.errors import InputError
from oracle.models.checkpoints import load_training, save_training
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call

__all__ = ["GateFunction", "GateNetwork", "Plan", "gated_loss", "train"]

GateFunction = Callable[[int, Tensor], Tensor | None]
"""Maps a layer and its input states (R T D) to 1 (run) or 0 (skip), with gradients (R T); None if it always runs."""


class GateNetwork(nn.Module, ABC):
    """Networks that decide which layers run."""

    @abstractmethod
    def decides(self, layer: int) -> bool:
        """Whether a layer may be skipped."""

    @abstractmethod
    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits for skipping and for running a layer (R T 2), given its input states (R T D)."""

    def sampled(self, examples: Seq[Example], temperature: float) -> GateFunction:
        """Hard samples for a batch of training sequences, one per token and layer, with straight-through gradients."""

        def decide(layer: int, hidden_RTD: Tensor) -> Tensor | None:
            if not self.decides(layer):
                return None
            return gumbel_softmax(self(layer, hidden_RTD), tau=temperature, hard=True)[..., 1]

        return decide


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hyperparameters of gate training.

    Attributes:
        steps: number of steps of Adam.
        batch: sequences per step.
        tokens: number of tokens fed per output, from its beginning; later ones cost time and add little.
        rate: initial learning rate; it falls to a tenth along a cosine.
        temperature: temperature of the Gumbel-softmax.
        keep_every: steps between two checkpoints.
    """

    steps: int = 32
    batch: int = 3
    tokens: int = 16
    rate: float = 0.05
    temperature: float = 1.0
    keep_every: int = 10


def train(
    net: GateNetwork, decoder: Decoder, training_set: TrainingSet, *, alpha: float, plan: Plan | None = None
) -> list[float]:
    """Trains gates in place; returns the loss per step taken.

    Each step draws its sequences and noise from the seed and its step number, so that training resumed from a
    checkpoint ends with the same weights.

    Args:
        net: the network to train.
        decoder: the model, which is not changed.
        training_set: the sequences.
        alpha: weight of the executed fraction in the loss, in nats per full model.
        plan: hyperparameters; None for the defaults.
    """
    plan = plan or Plan()
    taught = [
        replace(one, tokens=one.tokens[: plan.tokens + 1]) for one in training_set.examples if len(one.tokens) > 1
    ]
    if not list(net.parameters()):
        return []  # the model has no skippable layer
    optimizer = torch.optim.Adam(net.parameters(), lr=plan.rate)
    done, losses, checkpoint = 0, list[float](), training_set.checkpoint
    if checkpoint is not None:
        with suppress(InputError):  # missing, damaged or of another network: training starts anew
            done = int(load_training(checkpoint, net, optimizer, {})["step"])
    with training_set.watch("gates", plan.steps) as advance, _frozen(decoder.model), torch.random.fork_rng(devices=[]):
        advance(done, "")
        for step in range(done, plan.steps if taught else 0):
            torch.manual_seed(int(np.random.SeedSequence([training_set.seed, step]).generate_state(1)[0]))
            chosen = [taught[place] for place in torch.randperm(len(taught))[: plan.batch].tolist()]
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * (0.55 + 0.45 * math.cos(math.pi * step / plan.steps))
            surprise, executed = gated_loss(decoder, chosen, net.sampled(chosen, plan.temperature))
            loss = surprise + alpha * executed
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if checkpoint is not None and (step + 1) % plan.keep_every == 0:
                save_training(checkpoint, net, optimizer, {"step": step + 1})
            advance(1, f"{surprise.item():.2f} nats/token at {100 * executed.item():.0f} %")
    return losses


def gated_loss(decoder: Decoder, training_set: Seq[Example], decide: GateFunction) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the outputs in nats/token, and the executed fraction.

    The fraction is the mean over sequences of the mean over their fed tokens, as in Glavas et al., so that long outputs
    weigh no more than short ones.

    The first token of an output comes from the prompt's pass and is not predicted here.

    Args:
        decoder: the model, with frozen weights.
        training_set: one batch of sequences whose outputs have at least two tokens.
        decide: the gate.
    """
    tokens_RT, fed_RT, targets_X = _teacher(training_set, decoder.device)
    count, width = tokens_RT.shape[1], max(example.prompt.state.length for example in training_set)
    cache = RowCache(decoder.layers, width + count)
    for layer in range(decoder.layers):
        cache.fill_prompts(layer, [example.prompt.state.cache[layer] for example in training_set], width)
    cache.advance(width)
    padding_R = torch.tensor([width - example.prompt.state.length for example in training_set], device=decoder.device)
    slots_S = torch.arange(width + count, device=decoder.device)
    real_RS = slots_S >= padding_R[:, None]
    with torch.no_grad():
        # Unwrapped: the decorated method runs in inference mode, whose tensors carry no gradient.
        step = inspect.unwrap(Decoder.begin)(
            decoder,
            tokens_RT,
            cache=cache,
            positions_RT=(slots_S[width:] - padding_R[:, None]).clamp(max=decoder.positions.last),
            mask_RS=None if bool(real_RS.all()) else real_RS.long(),
        )
    hidden_RTD, executed = step.hidden_RTD, tokens_RT.new_zeros((), dtype=torch.float32)
    for layer in range(decoder.layers):
        cache.step = layer
        output_RTD = decoder.run(Call(layer), hidden_RTD, step)
        runs_RT = decide(layer, hidden_RTD)
        if runs_RT is None:
            hidden_RTD, executed = output_RTD, executed + 1
        else:
            gate_RTD = runs_RT[..., None].to(output_RTD.dtype)
            hidden_RTD = hidden_RTD + gate_RTD * (output_RTD - hidden_RTD)
            executed = executed + ((runs_RT * fed_RT).sum(1) / fed_RT.sum(1)).mean()
    logits_XV = inspect.unwrap(Decoder.finish)(decoder, hidden_RTD[fed_RT][:, None])[:, 0]
    return cross_entropy(logits_XV.float(), targets_X), executed / decoder.layers


def _teacher(training_set: Seq[Example], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Fed tokens, padded at the end (R T); whether each is real (R T); the next token of each real one (X)."""
    count = max(len(example.tokens) for example in training_set) - 1
    tokens_RT = torch.zeros((len(training_set), count), dtype=torch.long)
    fed_RT = torch.zeros_like(tokens_RT, dtype=torch.bool)
    for row, example in enumerate(training_set):
        fed = len(example.tokens) - 1
        tokens_RT[row, :fed], fed_RT[row, :fed] = torch.tensor(example.tokens[:-1]), True
    targets = [token for example in training_set for token in example.tokens[1:]]
    return tokens_RT.to(device), fed_RT.to(device), torch.tensor(targets, device=device)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Turns off gradients of the model's weights."""
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
