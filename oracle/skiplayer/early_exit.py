"""Early exit by confidence, the baseline that leaves and does not come back.

Shapes: B rows, T tokens, D width, N tokens that have not left, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional

from oracle.skiplayer.model import Model, Pass
from oracle.skiplayer.router import Pick

__all__ = ["Confidence", "exit_layers", "exit_loss"]


def exit_layers(layers: int) -> tuple[int, ...]:
    """After how many layers a token may leave: each quarter of the depth."""
    return tuple(sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3)}))


class Confidence:
    """A token leaves where the two likeliest next tokens are far enough apart.

    The softmax gap of CALM (Schuster et al. 2022, arXiv 2207.07061). What the layers above store of a token that has
    left are keys and values projected from the state it left with.

    Args:
        model: trained with `exit_loss`.
        threshold: least gap p1 - p2 at which a token leaves.
    """

    def __init__(self, model: Model, threshold: float) -> None:
        self._model, self._threshold = model, threshold
        self._exits = exit_layers(len(model.layers))
        self._stays: Tensor | None = None

    def __call__(self, unit: int, hidden_BTD: Tensor, normed_BTD: Tensor) -> Pick:
        """Who has not left by now."""
        per_layer = self._model.units // len(self._model.layers)
        if unit == 0:
            self._stays = torch.ones(hidden_BTD.shape[:2], dtype=torch.bool, device=hidden_BTD.device)
        assert self._stays is not None, "units are asked about in order, from the first"
        if unit % per_layer == 0 and unit // per_layer in self._exits:
            stays_BT = self._stays.clone()
            best_N2 = self._model.logits(hidden_BTD[stays_BT]).softmax(-1).topk(2).values
            stays_BT[self._stays] = best_N2[:, 0] - best_N2[:, 1] < self._threshold
            self._stays = stays_BT
        return Pick(self._stays, rate=self._stays.float().mean())


def exit_loss(model: Model, done: Pass, gold_BT: Tensor) -> Tensor:
    """Mean cross-entropy (nats/token) over all exits and the last layer."""
    states = [*(done.after[layers - 1] for layers in exit_layers(len(model.layers))), done.hidden_BTD]
    losses = [functional.cross_entropy(model.logits(one).flatten(0, 1), gold_BT.flatten()) for one in states]
    return torch.stack(losses).mean()
