"""Controllers that choose one allocation per prompt from a small code book.

They are trained on an oracle run: the quality of every allocation in the code book per sequence. In shapes, X is the
windows of a prompt.
"""

from abc import abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import linear_model
from torch import Tensor, nn

from oracle.controllers.base import SequenceController
from oracle.controllers.candidates import code_book
from oracle.controllers.methods.static import pool
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["WINDOWS", "Ridge", "Router", "class_weights", "focal_loss", "network"]

PRICES = (0.1, 0.3, 1.0)
"""Cost of the full model in quality, as a multiple of the best mask's mean quality minus the worst's, in training."""

BOOK = 6
WINDOWS = 8
HIDDEN = 128
GAMMA = 2.0
BALANCE = 0.999
STEPS = 150
RATE = 1e-3
DECAY = 1e-2
RIDGES = np.logspace(0, 5, 11)


class _CodeBookController(SequenceController):
    """Chooses from a code book.

    Args:
        engine: runs the model.
        price: cost of the full model in quality, as a multiple of the difference in mean quality between the best and
            the worst mask on the training part.
    """

    learns = True

    def __init__(self, engine: Engine, *, price: float) -> None:
        super().__init__(engine)
        if not price >= 0:
            raise InputError(f"a price of at least 0 is required, but {price} was given")
        self.price = price
        self.book: list[Allocation] = []

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Prices from low to high."""
        return [{"price": price} for price in PRICES]

    def fit(self, training_set: TrainingSet) -> None:
        """Builds the code book from the run's allocations, then trains the choice."""
        masks, quality_NM = pool(training_set)
        means_M = quality_NM.mean(0)
        price = self.price * float(means_M.max() - means_M.min())
        cost_M = np.array([len(mask) for mask in masks]) / self.engine.units.count
        chosen = code_book(quality_NM, cost_M, size=BOOK, price=price)
        self.book = [masks[place] for place in chosen]
        self._learn(training_set, quality_NM[:, chosen], price * cost_M[chosen])

    @abstractmethod
    def _learn(self, training_set: TrainingSet, quality_NM: NDArray[np.float64], cost_M: NDArray[np.float64]) -> None:
        """Trains on the qualities of the code book's allocations and their costs, both in units of quality."""

    @abstractmethod
    def choose(self, prompts: Seq[Prompt]) -> list[int]:
        """Index into the code book per prompt."""

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """One allocation of the code book per prompt."""
        if not self.book:
            raise self._not_fitted()
        return [self.book[place] for place in self.choose(prompts)]

    def state(self) -> dict[str, NDArray[Any]]:
        """The code book, as masks (M L)."""
        runs_ML = np.zeros((len(self.book), self.engine.units.count), dtype=np.uint8)
        for row, mask in zip(runs_ML, self.book, strict=True):
            row[list(mask)] = 1
        return {"book": runs_ML} if self.book else {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        self.book = [tuple(np.flatnonzero(row).tolist()) for row in state["book"]]


class Router(_CodeBookController):
    """Two linear layers with a GELU between them, on the means of eight windows of the prompt's states.

    The bottleneck has 128 units, the windows' logits are averaged, and the loss is the class-balanced focal loss
    (Dr.LLM, arXiv 2510.12773, whose routers decide per layer; this one chooses an allocation of the code book). A
    sequence's label is the allocation of highest quality less cost.
    """

    name = "router"

    def __init__(self, engine: Engine, *, price: float) -> None:
        super().__init__(engine, price=price)
        self._net: nn.Sequential | None = None

    def _learn(self, training_set: TrainingSet, quality_NM: NDArray[np.float64], cost_M: NDArray[np.float64]) -> None:
        label_N = torch.from_numpy((quality_NM - cost_M).argmax(1))
        windows = [example.prompt.windows(self.engine, WINDOWS).cpu() for example in training_set.examples]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_set.seed)
            net = self._net = network(windows[0].shape[-1], len(self.book))
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
        weight_M = class_weights(label_N, len(self.book))
        with training_set.watch("router", STEPS) as advance:
            for _ in range(STEPS):
                logits_NM = torch.stack([net(window_XD).mean(0) for window_XD in windows])
                loss = focal_loss(logits_NM, label_N, weight_M)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(1, "")

    @torch.no_grad()
    def choose(self, prompts: Seq[Prompt]) -> list[int]:
        """The most probable allocation per prompt."""
        assert self._net is not None
        return [int(self._net(one.windows(self.engine, WINDOWS).cpu()).mean(0).argmax()) for one in prompts]

    def state(self) -> dict[str, NDArray[Any]]:
        """The code book and the network's weights."""
        net = self._net.state_dict() if self._net else {}
        return super().state() | {name: value.numpy() for name, value in net.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        super().restore(state)
        weights = {name: torch.from_numpy(value.copy()) for name, value in state.items() if name != "book"}
        self._net = network(weights["1.weight"].shape[1], len(self.book))
        self._net.load_state_dict(weights)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """Two matrix products per window."""
        if self._net is None:
            return 0.0
        return 2.0 * WINDOWS * sum(weight.numel() for weight in self._net.parameters() if weight.dim() > 1)


def network(width: int, classes: int) -> nn.Sequential:
    """Dr.LLM's router: two linear layers with a GELU between them, 128 units wide, on a normalised input."""
    # Hidden states grow with depth; without normalisation the first layer saturates.
    return nn.Sequential(
        nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, classes)
    )


def class_weights(label_N: Tensor, classes: int) -> Tensor:
    """Class weights (1 - b) / (1 - b^n) with b = 0.999, scaled to mean 1 over the classes that occur (M).

    Source: effective number of samples, Cui et al. 2019 (arXiv 1901.05555), as in Dr.LLM.
    """
    count_M = torch.bincount(label_N, minlength=classes).double()
    weight_M = torch.where(count_M > 0, (1 - BALANCE) / (1 - BALANCE**count_M), 0.0)
    return (weight_M / weight_M[count_M > 0].mean()).float()


def focal_loss(logits_NM: Tensor, label_N: Tensor, weight_M: Tensor) -> Tensor:
    """Mean of -w (1 - p)^2 log p, with p the probability of the label (Lin et al. 2017, arXiv 1708.02002)."""
    log_N = logits_NM.log_softmax(-1).gather(1, label_N[:, None])[:, 0]
    return -(weight_M[label_N] * (1 - log_N.exp()) ** GAMMA * log_N).mean()


class Ridge(_CodeBookController):
    """Baseline: ridge regression of each allocation's quality on the prompt's mean hidden state.

    Chooses the allocation of highest predicted quality less cost.
    """

    name = "ridge"

    def __init__(self, engine: Engine, *, price: float) -> None:
        super().__init__(engine, price=price)
        self._weights: dict[str, NDArray[np.float64]] = {}

    def _pooled(self, prompts: Seq[Prompt]) -> NDArray[np.float64]:
        return np.stack([prompt.windows(self.engine, 1)[0].double().cpu().numpy() for prompt in prompts])

    def _learn(self, training_set: TrainingSet, quality_NM: NDArray[np.float64], cost_M: NDArray[np.float64]) -> None:
        state_ND = self._pooled([example.prompt for example in training_set.examples])
        mean_D, scale_D = state_ND.mean(0), state_ND.std(0) + 1e-6
        # Leave-one-out needs two sequences; with one, the regression is constant under every penalty.
        several = len(state_ND) > 1
        regression = linear_model.RidgeCV(alphas=RIDGES) if several else linear_model.Ridge(alpha=RIDGES[0])
        found = regression.fit((state_ND - mean_D) / scale_D, quality_NM)
        self._weights = {
            "mean": mean_D,
            "scale": scale_D,
            "slopes": np.atleast_2d(found.coef_),
            "offset": np.atleast_1d(found.intercept_) - cost_M,
        }

    def choose(self, prompts: Seq[Prompt]) -> list[int]:
        """The allocation of highest predicted quality less cost, per prompt."""
        weights = self._weights
        state_ND = (self._pooled(prompts) - weights["mean"]) / weights["scale"]
        return (state_ND @ weights["slopes"].T + weights["offset"]).argmax(1).tolist()

    def state(self) -> dict[str, NDArray[Any]]:
        """The code book and the regression's weights."""
        return super().state() | self._weights

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        super().restore(state)
        self._weights = {name: value for name, value in state.items() if name != "book"}

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One matrix product."""
        return 2.0 * self._weights["slopes"].size if self._weights else 0.0
