"""Dr.LLM's routers: a small network per layer says whether the layer runs.

Trained on the cheapest qualifying candidate mask of each training sequence, in place of the paths of its tree search,
and on the states of the full model; repeats are left out, as this scope has none. In shapes, X is windows.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oracle.controllers.base import Controller, SequenceController, TokenController
from oracle.controllers.methods.confidence import generated
from oracle.controllers.methods.sequence_router import WINDOWS, class_weights, focal_loss, network
from oracle.controllers.methods.static import pool
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, Fed, Gate
from oracle.engine.schedule import as_masks
from oracle.metrics import least_quality
from oracle.models.gated_kv_cache import Policy
from oracle.types import Allocation

__all__ = ["DrLlm", "DrLlmForward", "labels"]

STEPS = 100
RATE = 1e-3
DECAY = 1e-2

SKIP, RUN = 0, 1


def labels(training_set: TrainingSet, units: int) -> NDArray[np.bool_]:
    """Whether each unit runs in the cheapest candidate mask that qualifies, per training sequence (N U)."""
    masks, quality_NM = pool(training_set)
    tolerance = training_set.quality_table.context.experiment.tolerance
    full = masks.index(tuple(range(units)))
    chosen = [
        masks[int(np.argmax(quality_M >= least_quality(float(quality_M[full]), tolerance)))]  # by rising cost
        for quality_M in quality_NM
    ]
    return as_masks(chosen, units)


class _LayerRouters(Controller):
    """A router per unit: Linear-GELU-Linear of 128 units, class-balanced focal loss (Dr.LLM, arXiv 2510.12773).

    The input is the mean hidden state before the unit over each of eight windows of the prompt; the windows' logits
    are averaged.
    """

    learns: ClassVar[bool] = True
    folds_apart: ClassVar[bool] = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._nets: nn.ModuleList | None = None

    def fit(self, training_set: TrainingSet) -> None:
        """Trains the routers of all units together."""
        units = self.engine.units.count
        label_UN = torch.from_numpy(labels(training_set, units).T.astype(np.int64))
        windows = [one.prompt.layer_windows(self.engine, WINDOWS).cpu() for one in training_set.examples]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_set.seed)
            nets = self._nets = nn.ModuleList(network(windows[0].shape[-1], 2) for _ in range(units))
        optimizer = torch.optim.AdamW(nets.parameters(), lr=RATE, weight_decay=DECAY)
        weight_M = class_weights(label_UN.flatten(), 2)
        with training_set.watch("routers", STEPS) as advance:
            for _ in range(STEPS):
                losses = [
                    focal_loss(torch.stack([net(one[unit]).mean(0) for one in windows]), label_UN[unit], weight_M)
                    for unit, net in enumerate(nets)
                ]
                loss = torch.stack(losses).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(1, "")

    def _routers(self) -> nn.ModuleList:
        if self._nets is None:
            raise self._not_fitted()
        return self._nets

    def state(self) -> dict[str, NDArray[Any]]:
        """The networks' weights."""
        return {name: value.numpy() for name, value in self._nets.state_dict().items()} if self._nets else {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        weights = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
        width = weights["0.1.weight"].shape[1]
        self._nets = nn.ModuleList(network(width, 2) for _ in range(self.engine.units.count))
        self._nets.load_state_dict(weights)

    def _products(self) -> float:
        """FLOPs of all routers' matrix products on one vector each."""
        weights = self._nets.parameters() if self._nets else ()
        return 2.0 * sum(weight.numel() for weight in weights if weight.dim() > 1)


class DrLlm(_LayerRouters, SequenceController):
    """Routers that decide once per sequence, from the prompt's states, as the paper describes."""

    name = "drllm"

    @torch.no_grad()
    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The units whose routers say run, per prompt."""
        nets = self._routers()
        found = []
        for prompt in prompts:
            windows_UXD = prompt.layer_windows(self.engine, WINDOWS).cpu()
            runs = [int(net(windows_UXD[unit]).mean(0).argmax()) == RUN for unit, net in enumerate(nets)]
            found.append(tuple(unit for unit, run in enumerate(runs) if run))
        return found

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """Two matrix products per unit and window."""
        return WINDOWS * self._products()


class DrLlmForward(_LayerRouters, TokenController):
    """The same routers at every forward, as released: while decoding the only window is the token itself.

    There row 0 of a batch decides for all rows; here each row decides for itself, as at batch 1. A skipped layer gets
    no keys and values for the token.
    """

    name = "drllm-forward"

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same gate for all prompts."""
        return _Routed(self._routers())

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """Two matrix products per layer and token."""
        return len(ran_TL) * self._products()


class _Routed(Gate):
    """Runs a layer where its router says so; prompt tokens run every layer."""

    policy: ClassVar[Policy] = "omit"

    def __init__(self, nets: nn.ModuleList) -> None:
        self._nets = nets

    @torch.no_grad()
    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Whether each token runs the layer (R T)."""
        own_T = torch.from_numpy(generated(fed, hidden_RTD.shape[1]))
        runs_RT = self._nets[layer](hidden_RTD.float().cpu()).argmax(-1) == RUN
        return (runs_RT | ~own_T).to(hidden_RTD.device)
