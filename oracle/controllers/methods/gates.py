"""Token controllers of Glavas et al. 2024 (arXiv 2410.20022): one small gate network per layer.

As released: linear or shrinking by 8 with ReLU to two logits, first and last layer always run, hard Gumbel-softmax of
temperature 1, and Gumbel noise at inference too (`sample`). Ours: decisions without noise (`argmax`), the normed input,
the initial bias towards running, and the target, which is the full model's own output instead of the data's labels.
"""

from collections.abc import Sequence as Seq
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oracle.controllers.base import TokenController
from oracle.controllers.methods.confidence import generated
from oracle.controllers.methods.gate_training import GateNetwork, TrainedGates
from oracle.controllers.prompts import Prompt, digest
from oracle.engine import Engine, Fed, Gate
from oracle.errors import InputError
from oracle.utils.text import one_of

__all__ = ["DECISIONS", "SHAPES", "GlavasFixed", "GlavasHidden", "GlavasNetwork", "LearnedGate", "gumbel_noise"]

SWEEP: dict[str, tuple[float, ...]] = {"linear": (1.5, 3.0, 8.0), "mlp": (3.0,)}
"""Shape to the weights of the executed fraction in the loss that a comparison tries, in nats per full model."""

SHRINK = 8

OPEN = 2.0
"""Initial bias of the `run` logit, so that training starts near the full model."""

SHAPES = tuple(SWEEP)

DECISIONS = ("sample", "argmax")


class GlavasNetwork(GateNetwork):
    """Two logits, skip and run, per layer except the first and the last.

    Args:
        width: D.
        layers: L.
        shape: `linear`, or `mlp`: each layer an eighth as wide as the one before, down to the two logits.
        fixed: whether a vector of ones replaces the hidden state, so that all tokens decide alike.
    """

    def __init__(self, width: int, layers: int, shape: str, *, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.nets = nn.ModuleList(_net(width, shape) for _ in range(max(0, layers - 2)))

    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits for skipping and for running a layer (R T 2)."""
        # With inputs of unit length, one learning rate suits all layers and both kinds of input.
        scale = hidden_RTD.shape[-1] ** -0.5
        if self.fixed:
            one_D = hidden_RTD.new_full(hidden_RTD.shape[-1:], scale, dtype=torch.float32)
            return self.nets[layer - 1](one_D).expand(*hidden_RTD.shape[:2], 2)
        states_RTD = nn.functional.layer_norm(hidden_RTD.detach().float(), hidden_RTD.shape[-1:])
        return self.nets[layer - 1](states_RTD * scale)

    def decides(self, layer: int) -> bool:
        """Whether a layer may be skipped."""
        return 0 < layer <= len(self.nets)


def _net(width: int, shape: str) -> nn.Sequential:
    widths = [width]
    while shape == "mlp" and widths[-1] // SHRINK > 2:
        widths.append(widths[-1] // SHRINK)
    parts: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        parts += [nn.Linear(wide, narrow), nn.ReLU()]
    last = nn.Linear(widths[-1], 2)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, OPEN]))
    return nn.Sequential(*parts, last)


class LearnedGate(Gate):
    """Decisions of a trained network; skipped layers keep keys and values of the un-updated state.

    Args:
        network: the network.
        noise: per request, the difference of the Gumbel variables of `run` and `skip` per generated token and layer
            (T L), drawn beforehand because the engine may ask again; tokens beyond it repeat the last row. None for
            decisions without noise.
    """

    def __init__(self, network: GlavasNetwork, noise: Seq[NDArray[np.float64]] | None = None) -> None:
        self._network, self._noise = network, noise

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Whether each token runs the layer (R T): the higher logit; prompt tokens run every layer."""
        if not self._network.decides(layer):
            return torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device)
        logits_RT2 = self._network(layer, hidden_RTD)
        lead_RT = logits_RT2[..., 1] - logits_RT2[..., 0]
        if self._noise is not None:
            places_T = np.arange(fed.start, fed.start + hidden_RTD.shape[1])
            drawn = [self._noise[request] for request in fed.requests]
            noise_RT = np.stack([one_TL[np.clip(places_T, 0, len(one_TL) - 1), layer] for one_TL in drawn])
            lead_RT = lead_RT + lead_RT.new_tensor(noise_RT)
        reading_T = torch.from_numpy(~generated(fed, hidden_RTD.shape[1])).to(hidden_RTD.device)
        return (lead_RT >= 0) | reading_T


def gumbel_noise(text: str, tokens: int, layers: int, seed: int) -> NDArray[np.float64]:
    """Differences of two Gumbel variables per token and layer (T L), determined by seed and prompt."""
    drawn_2TL = np.random.default_rng([seed, digest(text)]).gumbel(size=(2, tokens, layers))
    return drawn_2TL[0] - drawn_2TL[1]


class GlavasHidden(TrainedGates[GlavasNetwork], TokenController):
    """Gates that decide from the token's hidden state.

    Trained on a frozen model: cross-entropy of the full model's own output plus `alpha` times the mean executed
    fraction, through a hard Gumbel-softmax with straight-through gradients.

    Args:
        engine: runs the model.
        alpha: weight of the executed fraction, in nats per full model.
        shape: `linear` or `mlp`.
        decision: `sample` draws from the two logits per token and layer, as in training and in the released code;
            `argmax` takes the higher one.
        seed: seed of the samples, combined with the prompt.
    """

    name = "gate-hidden"
    fixed = False
    at_inference = ("decision", "seed")

    def __init__(
        self, engine: Engine, *, alpha: float, shape: str = "linear", decision: str = "argmax", seed: int = 0
    ) -> None:
        super().__init__(engine, alpha=alpha)
        if shape not in SHAPES:
            raise InputError(f"a gate shape must be {one_of(SHAPES, shape)}")
        if decision not in DECISIONS:
            raise InputError(f"a decision must be {one_of(DECISIONS, decision)}")
        self.shape, self.decision, self.seed = shape, decision, seed

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Both decisions at weights from low to high; one weight only for `mlp`, which takes longer to train."""
        return [
            {"shape": shape, "decision": decision, "alpha": alpha}
            for shape, alphas in SWEEP.items()
            for decision in DECISIONS
            for alpha in alphas
        ]

    def _untrained(self) -> GlavasNetwork:
        model = self.engine.model
        width = model.network.config.get_text_config().hidden_size
        return GlavasNetwork(width, model.layers, self.shape, fixed=self.fixed).to(model.decoder.device)

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same networks for all prompts, with the noise of each if decisions are sampled."""
        network = self._trained()
        if self.decision == "argmax":
            return LearnedGate(network)
        tokens, layers = max(1, self.engine.config.max_new_tokens - 1), self.engine.units.count
        return LearnedGate(network, [gumbel_noise(one.text, tokens, layers, self.seed) for one in prompts])

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """Matrix products of the networks per token; 0 for fixed inputs, which need evaluating only once."""
        if self._network is None or self.fixed:
            return 0.0
        return 2.0 * len(ran_TL) * sum(weight.numel() for weight in self._network.parameters() if weight.dim() > 1)


class GlavasFixed(GlavasHidden):
    """The control: the same networks and training, on a vector of ones.

    With `argmax` it is one learned mask; with `sample`, as released, one probability per layer, drawn per token.
    """

    name = "gate-fixed"
    fixed = True
