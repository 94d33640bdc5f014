"""Training of gates on a frozen model, teacher-forced on the full model's own outputs.

Every layer is computed for every token, and the gate mixes its output with what a token that skips it has; keys and
values are those of the un-updated state, as in the policy `propagate`. The prompt's come from its pass at full depth.
In shapes, X is the tokens to predict.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gumbel_softmax

from oracle.controllers.base import Controller
from oracle.controllers.prompts import Example
from oracle.controllers.training_set import TrainingSet
from oracle.controllers.weights import network_state, restore_network
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models.checkpoints import load_training, save_training
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call, Part
from oracle.models.layer_runner import Step

__all__ = [
    "GateFunction",
    "GateNetwork",
    "Mix",
    "Plan",
    "RunPart",
    "TrainedGates",
    "gated_loss",
    "straight_through",
    "train",
]

GateFunction = Callable[[int, Tensor], Tensor | None]
"""Maps a layer and its input states (R T D) to 1 (run) or 0 (skip), with gradients (R T); None if it always runs."""

RunPart = Callable[[Part, Tensor], Tensor]
"""Runs the present layer, or a branch of it, on states (R T D)."""

Mix = Callable[[int, Tensor, RunPart], tuple[Tensor, Tensor | None]]
"""Maps a layer, its input states (R T D) and what runs it to the states after it, and to how far each token ran it,
with gradients (R T); None for the whole layer."""


class GateNetwork(nn.Module, ABC):
    """Networks that decide which layers run."""

    @abstractmethod
    def decides(self, layer: int) -> bool:
        """Whether a layer may be skipped."""

    @abstractmethod
    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits for skipping and for running a layer (R T 2), given its input states (R T D)."""

    def mix(self, examples: Seq[Example], temperature: float) -> Mix:
        """What a batch of training sequences does with each layer: it runs or is skipped, by `sampled`."""
        return straight_through(self.sampled(examples, temperature))

    def price(self, executed_RT: Tensor) -> Tensor:
        """What each token costs in the loss (R T), given its executed fraction."""
        return executed_RT

    def sampled(self, examples: Seq[Example], temperature: float) -> GateFunction:
        """Hard samples for a batch of training sequences, one per token and layer, with straight-through gradients."""

        def decide(layer: int, hidden_RTD: Tensor) -> Tensor | None:
            if not self.decides(layer):
                return None
            return gumbel_softmax(self(layer, hidden_RTD), tau=temperature, hard=True)[..., 1]

        return decide


def straight_through(decide: GateFunction) -> Mix:
    """Runs or skips each layer by hard decisions, whose gradient is that of a mixture."""

    def mix(layer: int, hidden_RTD: Tensor, run: RunPart) -> tuple[Tensor, Tensor | None]:
        output_RTD = run(Part.WHOLE, hidden_RTD)
        runs_RT = decide(layer, hidden_RTD)
        if runs_RT is None:
            return output_RTD, None
        gate_RTD = runs_RT[..., None].to(output_RTD.dtype)
        return hidden_RTD + gate_RTD * (output_RTD - hidden_RTD), runs_RT

    return mix


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
        alpha: weight of the price of the executed fraction in the loss, in nats per full model.
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
            surprise, executed, price = gated_loss(decoder, chosen, net.mix(chosen, plan.temperature), net.price)
            loss = surprise + alpha * price
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if checkpoint is not None and (step + 1) % plan.keep_every == 0:
                save_training(checkpoint, net, optimizer, {"step": step + 1})
            advance(1, f"{surprise.item():.2f} nats/token at {100 * executed.item():.0f} %")
    return losses


Network = TypeVar("Network", bound=GateNetwork)


class TrainedGates(Controller, Generic[Network]):
    """A controller whose decisions are those of a network that is trained on the frozen model.

    Args:
        engine: runs the model.
        alpha: weight of the price of the executed fraction in the loss, in nats per full model.

    Raises:
        InputError: if the run's units are not the controller's, or alpha is negative or not finite.
    """

    learns = True
    folds_apart = True
    folds = 2
    plan: ClassVar[Plan | None] = None
    """Hyperparameters; None for the defaults."""

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine)
        if not 0 <= alpha < float("inf"):
            raise InputError(f"a finite weight alpha of at least 0 is required, but {alpha} was given")
        self.alpha = alpha
        self._network: Network | None = None

    @abstractmethod
    def _untrained(self) -> Network:
        """A new network, where the model is."""

    def _trained(self) -> Network:
        if self._network is None:
            raise self._not_fitted()
        return self._network

    def fit(self, training_set: TrainingSet) -> None:
        """Trains the network on the full model's outputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_set.seed)
            self._network = self._untrained()
        train(self._network, self.engine.model.decoder, training_set, alpha=self.alpha, plan=self.plan)

    def state(self) -> dict[str, NDArray[Any]]:
        """The network's weights."""
        return network_state(self._network)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        self._network = self._untrained()
        restore_network(self._network, state)


def gated_loss(
    decoder: Decoder, training_set: Seq[Example], mix: Mix, price: Callable[[Tensor], Tensor] = lambda ran: ran
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of the outputs in nats/token, the executed fraction, and the price of it.

    Fraction and price are means over sequences of the mean over their fed tokens, as in Glavas et al., so that long
    outputs weigh no more than short ones.

    The first token of an output comes from the prompt's pass and is not predicted here.

    Args:
        decoder: the model, with frozen weights.
        training_set: one batch of sequences whose outputs have at least two tokens.
        mix: the gate.
        price: of the executed fraction of each token.
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
    hidden_RTD, ran_RT = step.hidden_RTD, torch.zeros(tokens_RT.shape, device=decoder.device)
    for layer in range(decoder.layers):
        cache.step = layer
        hidden_RTD, runs_RT = mix(layer, hidden_RTD, partial(_run_part, decoder, layer, step))
        ran_RT = ran_RT + (1 if runs_RT is None else runs_RT)
    logits_XV = inspect.unwrap(Decoder.finish)(decoder, hidden_RTD[fed_RT][:, None])[:, 0]
    executed_RT = ran_RT / decoder.layers
    executed, paid = (((one_RT * fed_RT).sum(1) / fed_RT.sum(1)).mean() for one_RT in (executed_RT, price(executed_RT)))
    return cross_entropy(logits_XV.float(), targets_X), executed, paid


def _run_part(decoder: Decoder, layer: int, step: Step, part: Part, hidden_RTD: Tensor) -> Tensor:
    return decoder.run(Call(layer, part), hidden_RTD, step)


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
