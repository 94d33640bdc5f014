"""Which tokens run a unit: the learned router of SkipLayer, chance, and confidence.

A router sees the normed input of a unit and decides for each token. With logits z0 (skip), z1 (run), and the difference
of two Gumbel variables, which is logistic, a token runs if

    d = z1 - z0 + s * logistic > 0,       soft gate: sigmoid(d / temperature)

the two-class Gumbel-softmax; the noise scale s falls from 1 to 0 during training, so that the gates that are trained
last are those of inference (arg-max: s = 0). Otherwise a router that is undecided about all tokens has the right
density while it draws, and runs everything or nothing once it does not.

The gradient of a gate. A unit adds g * f(x) to the residual stream; straight-through puts the soft gate's derivative in
place of the hard gate's, so that the loss sends <dL/dy, f(x)> to it. A token that is skipped has no f(x):

- `all` runs the unit for every token in training and multiplies by 0: the textbook estimator, at the price of the
  dense model.
- `executed` really skips in training too. The gradient comes from tokens that run, each weighted by 1 / P(run), at most
  `HEAVIEST`: its expectation over the noise is that of <dL/dy, f(x)> at g = 1 over all tokens. `all` mixes in, for the
  skipped, the slope at g = 0. Both are one-sided first-order estimates of L(run) - L(skip), at either end of it.

The density loss needs no f(x): it sees every token's gate. Gradients end at the router: let through into the residual
stream they are noise to the layers below, which costs held-out loss (0.03 nats/token under `executed` and 0.29 under
`all`, 300 steps of the preset `laptop`, one seed).

Shapes: B rows, T tokens, D width, N tokens that run over all rows, Q the most tokens of a row that run.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Chance", "Gates", "Learned", "Pick"]

HEAVIEST = 4.0
"""Largest weight of a token in the gradient of gates."""


@dataclass(frozen=True)
class Pick:
    """The tokens that run a unit.

    Attributes:
        runs_BT: which they are; None for all.
        gate_BT: their gates: 1 where a token runs, 0 where not, with the gradient of the soft gate; None for plain 1.
        compute: whether skipped tokens are computed all the same, and multiplied by 0.
        rate: the share of tokens that run, differentiable where there is a gate.
    """

    runs_BT: Tensor | None = None
    gate_BT: Tensor | None = None
    compute: bool = False
    rate: Tensor | None = None

    @property
    def index(self) -> Tensor | None:
        """Places of the tokens to compute in the flattened batch; None for all of them."""
        if self.runs_BT is None or self.compute:
            return None
        return self.runs_BT.flatten().nonzero()[:, 0]


class Gates(Protocol):
    """Decides, unit by unit in order, which tokens run.

    Args of a call: the unit's number, its input (B T D), and that input normed.
    """

    def __call__(self, unit: int, hidden_BTD: Tensor, normed_BTD: Tensor) -> Pick:
        """The tokens that run the unit."""
        ...


class Learned(nn.Module):
    """A linear router per unit, without bias.

    Args:
        units: how many.
        width: D.
        temperature: of the soft gate.
        estimator: `executed` or `all`, as the module explains them.
        bias: where the biases z1 - z0 start, for routers that have them: those of a pretrained model, which is to start
            from running everything; None for none.

    Attributes:
        noise: scale s of the noise.
        generator: where it comes from; None for none, as at inference.
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

    def forward(self, unit: int, hidden_BTD: Tensor, normed_BTD: Tensor) -> Pick:
        """Routes the tokens of a batch."""
        logits_BT2 = normed_BTD.detach() @ self.weight[unit].T
        clean_BT = logits_BT2[..., 1] - logits_BT2[..., 0]
        if self.bias is not None:
            clean_BT = clean_BT + self.bias[unit]
        noisy_BT = clean_BT
        if self.generator is not None and self.noise:
            drawn_BT = torch.rand(clean_BT.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
            noisy_BT = clean_BT + self.noise * drawn_BT.logit().to(clean_BT.device)
        runs_BT = noisy_BT > 0
        if not torch.is_grad_enabled():
            return Pick(runs_BT, rate=runs_BT.float().mean())
        soft_BT = torch.sigmoid(noisy_BT / self.temperature)
        slope_BT = soft_BT - soft_BT.detach()
        rate = (runs_BT + slope_BT).mean()
        if self.estimator == "all":
            return Pick(runs_BT, runs_BT + slope_BT, compute=True, rate=rate)
        chance_BT = torch.sigmoid(clean_BT.detach() / max(self.noise, 1e-3))
        return Pick(runs_BT, 1 + slope_BT * (1 / chance_BT).clamp(max=HEAVIEST), rate=rate)


@dataclass
class Chance:
    """The control: each token runs each unit with probability P, whatever it is.

    Attributes:
        density: P.
        generator: where the draws come from.
    """

    density: float
    generator: torch.Generator

    def __call__(self, unit: int, hidden_BTD: Tensor, normed_BTD: Tensor) -> Pick:
        """Draws anew for every unit of every batch."""
        drawn_BT = torch.rand(hidden_BTD.shape[:2], generator=self.generator).to(hidden_BTD.device)
        runs_BT = drawn_BT < self.density
        return Pick(runs_BT, rate=runs_BT.float().mean())
