"""Early exit by confidence: a baseline in which a token skips all layers after its exit.

In shapes, X is the tokens that have not exited.
"""

import torch
from torch import Tensor
from torch.nn import functional

from oracle.skiplayer.model import Model, Pass
from oracle.skiplayer.router import Routing

__all__ = ["Confidence", "exit_layers", "exit_loss"]


def exit_layers(layers: int) -> tuple[int, ...]:
    """Numbers of layers after which a token may exit: each quarter of the depth."""
    return tuple(sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3)}))


class Confidence:
    """Gates that let a token exit once the gap of the two highest probabilities reaches a threshold.

    The softmax gap of CALM (Schuster et al. 2022, arXiv 2207.07061). Keys and values of later layers are projected from
    the state at the exit.

    Args:
        model: a model trained with `exit_loss`.
        threshold: least gap p1 - p2 at which a token exits.
    """

    def __init__(self, model: Model, threshold: float) -> None:
        self._model, self._threshold = model, threshold
        self._exits = exit_layers(len(model.layers))
        self._stays: Tensor | None = None

    def __call__(self, unit: int, hidden_RTD: Tensor, normed_RTD: Tensor) -> Routing:
        """Routes the tokens that have not exited."""
        per_layer = self._model.units // len(self._model.layers)
        if unit == 0:
            self._stays = torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device)
        assert self._stays is not None, "units must be routed in order, from the first"
        if unit % per_layer == 0 and unit // per_layer in self._exits:
            stays_RT = self._stays.clone()
            best_X2 = self._model.logits(hidden_RTD[stays_RT]).softmax(-1).topk(2).values
            stays_RT[self._stays] = best_X2[:, 0] - best_X2[:, 1] < self._threshold
            self._stays = stays_RT
        return Routing(self._stays, rate=self._stays.float().mean())


def exit_loss(model: Model, done: Pass, gold_RT: Tensor) -> Tensor:
    """Mean cross-entropy (nats/token) over all exits and the last layer."""
    states = [*(done.after[layers - 1] for layers in exit_layers(len(model.layers))), done.hidden_RTD]
    losses = [functional.cross_entropy(model.logits(one).flatten(0, 1), gold_RT.flatten()) for one in states]
    return torch.stack(losses).mean()
