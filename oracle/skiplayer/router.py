"""Gates that decide which tokens run a unit: the learned router of SkipLayer, and random routing.

A router decides per token from the normed input of a unit. With logits z0 (skip), z1 (run), and the difference of two
Gumbel variables, which is logistic, a token runs if

    d = z1 - z0 + s * logistic > 0,       soft gate: sigmoid(d / temperature)

the two-class Gumbel-softmax. The noise scale s falls from 1 to 0 during training, so that training ends with the gates
of inference (arg-max: s = 0). Otherwise a router that is undecided about all tokens has the right density with noise,
and runs everything or nothing without it.

Gradient of a gate. A unit adds g * f(x) to the residual stream; straight-through replaces the hard gate's derivative by
the soft gate's, so that the gate receives <dL/dy, f(x)>. A skipped token has no f(x):

- `all` runs the unit for every token in training and multiplies by 0: the textbook estimator, at the cost of the dense
  model.
- `executed` skips in training too. The gradient comes from running tokens, each weighted by 1 / P(run), at most
  `MAX_WEIGHT`: its expectation over the noise is that of <dL/dy, f(x)> at g = 1 over all tokens. `all` mixes in the
  slope at g = 0 for skipped tokens. Both are one-sided first-order estimates of L(run) - L(skip), at either end of it.

The density loss uses every token's gate and needs no f(x). Gradients stop at the router: passed on into the residual
stream they are noise to the layers below and cost held-out loss (0.03 nats/token under `executed` and 0.29 under `all`,
300 steps of the preset `laptop`, one seed).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Gates", "LearnedGates", "RandomGates", "Routing"]

MAX_WEIGHT = 4.0
"""Maximum weight of a token in the gradient of gates."""


@dataclass(frozen=True)
class Routing:
    """Routing of one batch at one unit.

    Attributes:
        runs_RT: whether each token runs; None for all.
        gate_RT: 1 for tokens that run, else 0, with the gradient of the soft gate; None for constant 1.
        compute: whether skipped tokens are computed too, and multiplied by 0.
        rate: share of tokens that run, differentiable if there is a gate.
    """

    runs_RT: Tensor | None = None
    gate_RT: Tensor | None = None
    compute: bool = False
    rate: Tensor | None = None

    @property
    def index(self) -> Tensor | None:
        """Indices of the tokens to compute in the flattened batch (X); None for all."""
        if self.runs_RT is None or self.compute:
            return None
        return self.runs_RT.flatten().nonzero()[:, 0]


class Gates(Protocol):
    """Decides which tokens run; called once per unit, in order."""

    def __call__(self, unit: int, hidden_RTD: Tensor, normed_RTD: Tensor) -> Routing:
        """Routes a batch at a unit, given the unit's input and the same input normed."""
        ...


class LearnedGates(nn.Module):
    """One linear router per unit.

    Args:
        units: number of units.
        width: D.
        temperature: temperature of the soft gate.
        estimator: `executed` or `all`; see the module.
        bias: initial bias on z1 - z0, for routers of a pretrained model, which start from running everything; None for
            routers without bias.

    Attributes:
        noise: scale s of the noise.
        generator: source of the noise; None for none, as at inference.
    """

    def __init__(
        self, units: int, width: int, *, temperature: float, estimator: str, bias: float | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(units, 2, width))
        self.bias = None if bias is None else nn.Parameter(torch.full((units,), bias))
        self.temperature, self.estimator = temperature, estimator
        self.noise = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, unit: int, hidden_RTD: Tensor, normed_RTD: Tensor) -> Routing:
        """Routes the tokens of a batch."""
        logits_RT2 = normed_RTD.detach() @ self.weight[unit].T
        clean_RT = logits_RT2[..., 1] - logits_RT2[..., 0]
        if self.bias is not None:
            clean_RT = clean_RT + self.bias[unit]
        noisy_RT = clean_RT
        if self.generator is not None and self.noise:
            drawn_RT = torch.rand(clean_RT.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
            noisy_RT = clean_RT + self.noise * drawn_RT.logit().to(clean_RT.device)
        runs_RT = noisy_RT > 0
        if not torch.is_grad_enabled():
            return Routing(runs_RT, rate=runs_RT.float().mean())
        soft_RT = torch.sigmoid(noisy_RT / self.temperature)
        slope_RT = soft_RT - soft_RT.detach()
        rate = (runs_RT + slope_RT).mean()
        if self.estimator == "all":
            return Routing(runs_RT, runs_RT + slope_RT, compute=True, rate=rate)
        chance_RT = torch.sigmoid(clean_RT.detach() / max(self.noise, 1e-3))
        return Routing(runs_RT, 1 + slope_RT * (1 / chance_RT).clamp(max=MAX_WEIGHT), rate=rate)


@dataclass
class RandomGates:
    """The control: each token runs each unit with probability P, independent of its state.

    Attributes:
        density: P.
        generator: source of the draws.
    """

    density: float
    generator: torch.Generator

    def __call__(self, unit: int, hidden_RTD: Tensor, normed_RTD: Tensor) -> Routing:
        """Draws a new routing for every unit of every batch."""
        drawn_RT = torch.rand(hidden_RTD.shape[:2], generator=self.generator).to(hidden_RTD.device)
        runs_RT = drawn_RT < self.density
        return Routing(runs_RT, rate=runs_RT.float().mean())
