"""FiRST's routers: a linear map per layer decides, when the prompt is read, whether the sequence skips the layer."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax, layer_norm

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.gate_training import GateFunction, GateNetwork, train
from oracle.controllers.methods.gates import OPEN
from oracle.controllers.prompts import Example, Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.controllers.weights import network_state, restore_network
from oracle.engine import Engine
from oracle.errors import InputError
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


class First(SequenceController):
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
    learns = True
    folds = 2
    units = ("layer",)

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine)
        if engine.config.unit not in self.units:
            raise self._wrong_unit()
        if not 0 <= alpha < float("inf"):
            raise InputError(f"a finite weight alpha of at least 0 is required, but {alpha} was given")
        self.alpha = alpha
        self._network: PrefillRouters | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Weights from low to high."""
        return [{"alpha": alpha} for alpha in ALPHAS]

    def _untrained(self) -> PrefillRouters:
        model = self.engine.model
        return PrefillRouters(self.engine, model.decoder.width, model.layers).to(model.decoder.device)

    def fit(self, training_set: TrainingSet) -> None:
        """Trains the routers on the frozen model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_set.seed)
            self._network = self._untrained()
        train(self._network, self.engine.model.decoder, training_set, alpha=self.alpha)

    @torch.no_grad()
    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The layers whose routers say run, per prompt."""
        if self._network is None:
            raise self._not_fitted()
        layers = range(self.engine.units.count)
        runs_LR = [
            (logits[:, 1] >= logits[:, 0]).tolist() if (logits := self._logits(layer, prompts)) is not None else None
            for layer in layers
        ]
        return [
            tuple(layer for layer in layers if (runs := runs_LR[layer]) is None or runs[row])
            for row in range(len(prompts))
        ]

    def _logits(self, layer: int, prompts: Seq[Prompt]) -> Tensor | None:
        assert self._network is not None
        return self._network.of_prompts(layer, prompts) if prompts and self._network.decides(layer) else None

    def state(self) -> dict[str, NDArray[Any]]:
        """The routers' weights."""
        return network_state(self._network)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        self._network = self._untrained()
        restore_network(self._network, state)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One matrix product per layer and prompt."""
        weights = self._network.parameters() if self._network else ()
        return 2.0 * sum(weight.numel() for weight in weights if weight.dim() > 1)
