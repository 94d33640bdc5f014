"""Per-token controllers of Glavas et al. 2024 (arXiv 2410.20022): a small network beside each layer decides.

Shapes: R rows, T tokens, D hidden width, L layers.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oracle.controllers.base import TokenController
from oracle.controllers.methods.confidence import generated
from oracle.controllers.methods.gate_training import Deciding, train
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, Fed, Gate
from oracle.errors import InputError

__all__ = ["Deciders", "GlavasFixed", "GlavasHidden", "LearnedGate"]

SWEEP: dict[str, tuple[float, ...]] = {"linear": (1.5, 3.0, 8.0), "mlp": (3.0,)}
"""Weights of the executed fraction in the loss, in nats per whole model, that a comparison tries for each shape."""

SHRINK = 8

OPEN = 2.0
"""Logits by which layers run at first, so that training begins near the full model."""

SHAPES = tuple(SWEEP)


class Deciders(Deciding):
    """Two logits, skip and run, for every layer but the first and the last.

    Args:
        width: D.
        layers: L.
        shape: `linear`, or `mlp`: each layer an eighth as wide as the one before, down to the two logits.
        fixed: whether a vector of ones takes the place of the hidden state: then all tokens decide alike.
    """

    def __init__(self, width: int, layers: int, shape: str, *, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.nets = nn.ModuleList(_net(width, shape) for _ in range(max(0, layers - 2)))

    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits of skipping and of running a layer (R T 2)."""
        # At unit length one rate of learning suits all layers and both kinds of input.
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
        parts += [nn.Linear(wide, narrow), nn.GELU()]
    last = nn.Linear(widths[-1], 2)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, OPEN]))
    return nn.Sequential(*parts, last)


class LearnedGate(Gate):
    """What deciders say, without noise; what is skipped keeps keys and values of the un-updated state."""

    def __init__(self, deciders: Deciders) -> None:
        self._deciders = deciders

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """The likelier of both; tokens of the prompt run every layer."""
        if not self._deciders.decides(layer):
            return torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device)
        logits_RT2 = self._deciders(layer, hidden_RTD)
        reading_T = torch.from_numpy(~generated(fed, hidden_RTD.shape[1])).to(hidden_RTD.device)
        return (logits_RT2[..., 1] >= logits_RT2[..., 0]) | reading_T


class GlavasHidden(TokenController):
    """Decides by the token's hidden state.

    Trained on a frozen model: cross-entropy of the full model's own output plus `alpha` times the mean executed
    fraction, through a hard Gumbel-softmax with straight-through gradients.

    Args:
        engine: runs the model.
        alpha: weight of the executed fraction, in nats per whole model.
        shape: `linear` or `mlp`.
    """

    name = "gate-hidden"
    learns = True
    fixed = False
    folds = 2

    def __init__(self, engine: Engine, *, alpha: float, shape: str = "linear") -> None:
        super().__init__(engine)
        if shape not in SHAPES:
            raise InputError(f"the shape of a gate must be one of {', '.join(SHAPES)}, not '{shape}'")
        if not 0 <= alpha < float("inf"):
            raise InputError(f"a weight alpha of at least 0 is required, but {alpha} was given")
        self.alpha, self.shape = alpha, shape
        self._deciders: Deciders | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Weights from light to heavy; for networks, which take longer, one."""
        return [{"shape": shape, "alpha": alpha} for shape, alphas in SWEEP.items() for alpha in alphas]

    def _blank(self) -> Deciders:
        model = self.engine.model
        width = model.network.config.get_text_config().hidden_size
        return Deciders(width, self.engine.model.layers, self.shape, fixed=self.fixed).to(
            self.engine.model.decoder.device
        )

    def fit(self, training_set: TrainingSet) -> None:
        """Trains the deciders on the full model's outputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_set.seed)
            self._deciders = self._blank()
        train(self._deciders, self.engine.model.decoder, training_set, alpha=self.alpha)

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """One gate for all."""
        if self._deciders is None:
            raise InputError(f"'{self.name}' is trained on sequences first: call fit")
        return LearnedGate(self._deciders)

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights."""
        weights = self._deciders.state_dict() if self._deciders else {}
        return {name: value.cpu().numpy() for name, value in weights.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what another one has learned."""
        self._deciders = self._blank()
        self._deciders.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """The networks, for every token; a fixed input needs them once and for all."""
        if self._deciders is None or self.fixed:
            return 0.0
        return 2.0 * len(ran_TL) * sum(weight.numel() for weight in self._deciders.parameters() if weight.dim() > 1)


class GlavasFixed(GlavasHidden):
    """The control: the same networks, trained alike, on a vector of ones. It amounts to one learned mask."""

    name = "gate-fixed"
    fixed = True
