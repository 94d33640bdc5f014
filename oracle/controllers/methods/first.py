"""FiRST's routers: a linear map per layer decides, when the prompt is read, whether the sequence skips the layer."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax, layer_norm

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.gate_training import GateFunction, GateNetwork, TrainedGates
from oracle.controllers.methods.gates import OPEN
from oracle.controllers.prompts import Example, Prompt
from oracle.engine import Engine
from oracle.types import Allocation

__all__ = ["First", "PrefillRouters"]

ALPHAS = (1.5, 3.0, 8.0)
"""Weights of the executed fraction in the loss that a comparison tries, in nats per full model."""


class PrefillRouters(GateNetwork):
    """Two logits, skip and run, per layer except the first and the last, from the prompt's mean state before the layer.

    Args:
        engine: computes the states.
        width: D.
        layers: L.
    """

    def __init__(self, engine: Engine, width: int, layers: int) -> None:
        super().__init__()
        self._engine = engine
        self.nets = nn.ModuleList(_router(width) for _ in range(max(0, layers - 2)))

    def decides(self, layer: int) -> bool:
        """Whether a layer may be skipped."""
        return 0 < layer <= len(self.nets)

    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits for skipping and for running a layer (R T 2)."""
        # With inputs of unit length one learning rate suits all layers.
        width = hidden_RTD.shape[-1]
        net: nn.Module = self.nets[layer - 1]
        logits_RT2: Tensor = net(layer_norm(hidden_RTD.float(), (width,)) * width**-0.5)
        return logits_RT2

    def of_prompts(self, layer: int, prompts: Seq[Prompt]) -> Tensor:
        """The logits of some prompts (R 2)."""
        means = [prompt.layer_windows(self._engine, 1)[layer, 0] for prompt in prompts]
        return self.forward(layer, torch.stack(means)[:, None])[:, 0]

    def sampled(self, examples: Seq[Example], temperature: float) -> GateFunction:
        """One sample per sequence and layer, the same for all of its tokens."""
        prompts = [example.prompt for example in examples]

        def decide(layer: int, hidden_RTD: Tensor) -> Tensor | None:
            if not self.decides(layer):
                return None
            drawn_R2 = gumbel_softmax(self.of_prompts(layer, prompts), tau=temperature, hard=True)
            return drawn_R2[:, 1:].to(hidden_RTD.device).expand(-1, hidden_RTD.shape[1])

        return decide


def _router(width: int) -> nn.Linear:
    net = nn.Linear(width, 2)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([0.0, OPEN]))
    return net


class First(TrainedGates[PrefillRouters], SequenceController):
    """Routers decided at prefill (FiRST, Jain et al. 2024, arXiv 2410.12513), without its LoRA repair.

    Ours are the loss (that of the gates: cross-entropy of the full model's own output plus `alpha` times the executed
    fraction), the mean state as the router's input, and that the first and the last layer always run.

    Args:
        engine: runs the model.
        alpha: weight of the executed fraction, in nats per full model.

    Raises:
        InputError: if the engine's units are sublayers, or alpha is negative or not finite.
    """

    name = "first"
    units = ("layer",)

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine, alpha=alpha)
        if engine.config.unit not in self.units:
            raise self._wrong_unit()

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Weights from low to high."""
        return [{"alpha": alpha} for alpha in ALPHAS]

    def _untrained(self) -> PrefillRouters:
        model = self.engine.model
        return PrefillRouters(self.engine, model.decoder.width, model.layers).to(model.decoder.device)

    @torch.no_grad()
    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The layers whose routers say run, per prompt."""
        network, layers = self._trained(), range(self.engine.units.count)
        if not prompts:
            return []
        logits_LR2 = {layer: network.of_prompts(layer, prompts) for layer in layers if network.decides(layer)}
        runs_LR = {layer: (logits_R2[:, 1] >= logits_R2[:, 0]).tolist() for layer, logits_R2 in logits_LR2.items()}
        return [
            tuple(layer for layer in layers if layer not in runs_LR or runs_LR[layer][row])
            for row in range(len(prompts))
        ]

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One matrix product per layer and prompt."""
        weights = self._network.parameters() if self._network else ()
        return 2.0 * sum(weight.numel() for weight in weights if weight.dim() > 1)
