"""FlexiDepth: a router per layer weighs the MLP of tokens that run it; for the others an adapter replaces the layer.

As released (Luo et al. 2025, arXiv 2503.23798): the second half of the layers is converted; the router is a bottleneck
(D to D/16, norm, tanh, back to D, one logit), its sigmoid the weight w; a token runs the layer if w > 0.5, with its
MLP's branch times w, and otherwise passes an adapter, an MLP of a sixteenth of the model's width, times 1 - w; keys and
values are kept for all tokens; the loss adds the mean square of the layers that a token runs.

Ours: prompts are read at full depth, the norms before router and adapter have no weights of their own, the router has
a bias that starts it near the full model and the adapter starts at zero, training is short and on the full model's own
outputs, and the square is of the executed fraction.
"""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from oracle.controllers.base import TokenController
from oracle.controllers.methods.confidence import generated
from oracle.controllers.methods.gate_training import GateNetwork, Mix, Plan, RunPart, TrainedGates
from oracle.controllers.prompts import Example, Prompt
from oracle.engine import Engine, Fed, Gate
from oracle.models.layer_call import Part

__all__ = ["Adapter", "FlexiDepth", "Router", "RouterAndAdapter"]

ALPHAS = (1.5, 8.0)
"""Weights of the squared executed fraction in the loss that a comparison tries, in nats per full model."""

REDUCTION = 16
THRESHOLD = 0.5

OPEN = 4.0
"""Initial logit of the router: w = 0.98, near the full model."""

PLAN = Plan(steps=64, rate=2e-3)


class Router(nn.Module):
    """The logit of a token's weight (R T), from its state (R T D).

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // REDUCTION)
        self.down, self.norm = nn.Linear(width, narrow, bias=False), nn.RMSNorm(narrow, eps=1e-5)
        self.up, self.head = nn.Linear(narrow, width, bias=False), nn.Linear(width, 1)
        with torch.no_grad():
            self.head.bias.fill_(OPEN)

    def forward(self, hidden_RTD: Tensor) -> Tensor:
        """The logit, in float32."""
        states_RTD = rms_norm(hidden_RTD.float(), hidden_RTD.shape[-1:])
        logit_RT1: Tensor = self.head(self.up(torch.tanh(self.norm(self.down(states_RTD)))))
        return logit_RT1[..., 0]


class Adapter(nn.Module):
    """A narrow SwiGLU, what a skipped layer adds to a token's state (R T D).

    Args:
        width: D.
        inner: width of the model's own MLP.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        narrow = max(1, inner // REDUCTION)
        self.gate, self.down = nn.Linear(width, narrow, bias=False), nn.Linear(width, narrow, bias=False)
        self.up = nn.Linear(narrow, width, bias=False)
        with torch.no_grad():
            self.up.weight.zero_()

    def forward(self, hidden_RTD: Tensor) -> Tensor:
        """The branch, in the dtype of the states."""
        states_RTD = rms_norm(hidden_RTD.float(), hidden_RTD.shape[-1:])
        branch_RTD: Tensor = self.up(silu(self.gate(states_RTD)) * self.down(states_RTD))
        return branch_RTD.to(hidden_RTD.dtype)


class RouterAndAdapter(GateNetwork):
    """A router and an adapter for each layer of the second half.

    Args:
        width: D.
        inner: width of the model's MLP.
        layers: L.
        serial: whether a layer's MLP reads what its attention made.
    """

    def __init__(self, width: int, inner: int, layers: int, *, serial: bool) -> None:
        super().__init__()
        self._first, self._serial = layers - layers // 2, serial
        self.routers = nn.ModuleList(Router(width) for _ in range(layers // 2))
        self.adapters = nn.ModuleList(Adapter(width, inner) for _ in range(layers // 2))

    def decides(self, layer: int) -> bool:
        """Whether a layer may be skipped."""
        return layer >= self._first

    def forward(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """Logits for skipping and for running a layer (R T 2)."""
        logit_RT = self.routers[layer - self._first](hidden_RTD)
        return torch.stack([torch.zeros_like(logit_RT), logit_RT], dim=-1)

    def weight(self, layer: int, hidden_RTD: Tensor) -> Tensor:
        """The weight w of each token (R T)."""
        weight_RT: Tensor = self.routers[layer - self._first](hidden_RTD).sigmoid()
        return weight_RT

    def adapted(self, layer: int, hidden_RTD: Tensor, weight_RT: Tensor) -> Tensor:
        """The states after a layer that is skipped (R T D)."""
        branch_RTD: Tensor = self.adapters[layer - self._first](hidden_RTD)
        return hidden_RTD + (1 - weight_RT[..., None]).to(branch_RTD.dtype) * branch_RTD

    def mix(self, examples: Seq[Example], temperature: float) -> Mix:
        """Hard choices; gradients reach the routers through the weights of both paths."""

        def mix(layer: int, hidden_RTD: Tensor, run: RunPart) -> tuple[Tensor, Tensor | None]:
            if not self.decides(layer):
                return run(Part.WHOLE, hidden_RTD), None
            weight_RT = self.weight(layer, hidden_RTD)
            attended_RTD = run(Part.ATTENTION, hidden_RTD)
            entering_RTD = attended_RTD if self._serial else hidden_RTD
            branch_RTD = run(Part.MLP, entering_RTD) - entering_RTD
            whole_RTD = attended_RTD + weight_RT[..., None].to(branch_RTD.dtype) * branch_RTD
            runs_RT1 = (weight_RT > THRESHOLD)[..., None]
            return torch.where(runs_RT1, whole_RTD, self.adapted(layer, hidden_RTD, weight_RT)), weight_RT

        return mix

    def price(self, executed_RT: Tensor) -> Tensor:
        """The square, so that tokens which run many layers are pressed most."""
        return executed_RT.square()


class _Routed(Gate):
    """Decisions and paths of trained routers and adapters; prompt tokens run every layer as it is."""

    def __init__(self, network: RouterAndAdapter) -> None:
        self._network = network

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Whether each token runs the layer (R T)."""
        return self.weighed(layer, hidden_RTD, fed)[0]

    @torch.no_grad()
    def weighed(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> tuple[Tensor, Tensor | None]:
        """Whether each token runs the layer, and its weight (R T each)."""
        if not self._network.decides(layer):
            return torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device), None
        own_T = torch.from_numpy(generated(fed, hidden_RTD.shape[1])).to(hidden_RTD.device)
        weight_RT = self._network.weight(layer, hidden_RTD).where(own_T, 1.0)
        return weight_RT > THRESHOLD, weight_RT

    @torch.no_grad()
    def skipped(self, layer: int, hidden_GTD: Tensor, weight_GT: Tensor) -> Tensor:
        """The states after the adapter (G T D)."""
        return self._network.adapted(layer, hidden_GTD, weight_GT)


class FlexiDepth(TrainedGates[RouterAndAdapter], TokenController):
    """A router per layer, and an adapter for the tokens that skip it; keys and values are kept for all.

    Args:
        engine: runs the model.
        alpha: weight of the squared executed fraction in the loss, in nats per full model.

    Raises:
        InputError: if attention and MLP of the model's layers cannot be separated, or alpha is negative or not finite.
    """

    name = "flexidepth"
    plan = PLAN

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine, alpha=alpha)
        self._serial = engine.model.decoder.sublayers.serial

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Weights from low to high."""
        return [{"alpha": alpha} for alpha in ALPHAS]

    def _untrained(self) -> RouterAndAdapter:
        model = self.engine.model
        width = model.decoder.width
        inner = getattr(model.network.config.get_text_config(), "intermediate_size", None) or 4 * width
        network = RouterAndAdapter(width, int(inner), model.layers, serial=self._serial)
        return network.to(model.decoder.device)

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same networks for all prompts."""
        return _Routed(self._trained())

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """Matrix products of the routers at every token, and of the adapters where a layer is skipped."""
        if self._network is None:
            return 0.0
        routers, adapters = (
            sum(weight.numel() for weight in nets.parameters() if weight.dim() > 1)
            for nets in (self._network.routers, self._network.adapters)
        )
        skipped = int((~ran_TL).sum())
        per_adapter = adapters / max(1, len(self._network.adapters))
        return 2.0 * (len(ran_TL) * routers + skipped * per_adapter)
