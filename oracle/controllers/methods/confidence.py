"""Early exit token by token: a token leaves once the vocabulary head, applied half-way, is sure enough.

Every check costs one application of the head, which FLOPs and wall-clock include.

Shapes: R rows, T tokens, L layers, V vocabulary, E rows that have not left, F features.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from oracle.controllers.base import TokenController
from oracle.controllers.prompts import Example, Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, Fed, Gate
from oracle.errors import InputError
from oracle.models.decoder import Decoder

__all__ = ["AdaInfer", "Confidence", "Exits", "features", "generated"]

CHECKS = 6
"""Checks of a token, about: each applies the vocabulary head, which may be as heavy as several layers."""


CERTAIN = 20.0
"""Logit of what was always so."""


def generated(fed: Fed, count: int) -> NDArray[np.bool_]:
    """Which of the next tokens are generated ones, rather than the prompt's (T)."""
    return np.arange(fed.start, fed.start + count) >= 0


def features(logits_EV: Tensor) -> Tensor:
    """What a distribution says of its certainty: gap of the two highest probabilities, the highest, entropy (E F).

    The entropy is in nats.
    """
    log_EV = logits_EV.float().log_softmax(-1)
    best_E2 = log_EV.topk(2, dim=-1).values.exp()
    entropy_E = -(log_EV.exp() * log_EV).sum(-1)
    return torch.stack([best_E2[:, 0] - best_E2[:, 1], best_E2[:, 0], entropy_E], dim=-1)


class Exits(Gate):
    """Lets a token leave for good at the first check that says so.

    What it skips takes its keys and values from the state it left with, as in CALM.

    Args:
        decoder: applies the final norm and the head.
        checks: layers before which there is a check.
        leaves: which of some tokens leave, given their `features`.
    """

    def __init__(self, decoder: Decoder, checks: Seq[int], leaves: Callable[[Tensor], Tensor]) -> None:
        self._decoder, self._checks, self._leaves = decoder, frozenset(checks), leaves
        self._stays_RT = torch.empty(0)

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """All tokens that have not left yet."""
        if layer == 0:
            self._stays_RT = torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device)
        if layer in self._checks:
            own_T = torch.from_numpy(generated(fed, hidden_RTD.shape[1])).to(hidden_RTD.device)
            asked_RT = self._stays_RT & own_T
            if bool(asked_RT.any()):
                logits_EV = self._decoder.finish(hidden_RTD[asked_RT][:, None])[:, 0]
                self._stays_RT = self._stays_RT.clone()
                self._stays_RT[asked_RT] = ~self._leaves(features(logits_EV))
        return self._stays_RT


class _Exiting(TokenController):
    """A controller whose tokens leave early.

    Args:
        engine: runs the model.
        stride: layers between two checks; a sixth of the layers by default.
    """

    def __init__(self, engine: Engine, *, stride: int | None = None) -> None:
        super().__init__(engine)
        every = max(1, engine.model.layers // CHECKS) if stride is None else stride
        if every < 1:
            raise InputError(f"a stride of at least 1 layer is required, but {every} was given")
        self.checks = tuple(range(every, engine.model.layers, every))

    @abstractmethod
    def leaves(self, features_EF: Tensor) -> Tensor:
        """Which of some tokens leave (E)."""

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """One gate for all."""
        return Exits(self.engine.model.decoder, self.checks, self.leaves)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """The head, at every check up to the one where a token leaves."""
        left_T = ran_TL.sum(1)
        checks = sum(int((left_T >= check).sum()) for check in self.checks)
        return checks * (self.costs.overhead if self.costs else 0.0)


class Confidence(_Exiting):
    """Leaves once the softmax gap is high or the entropy low (CALM, Schuster et al. 2022, arXiv 2207.07061).

    Args:
        engine: runs the model.
        measure: `gap` (the two highest probabilities apart) or `entropy` (nats).
        threshold: least gap, or highest entropy.
        stride: layers between two checks; a sixth of the layers by default.
    """

    name = "confidence"

    def __init__(self, engine: Engine, *, measure: str, threshold: float, stride: int | None = None) -> None:
        super().__init__(engine, stride=stride)
        if measure not in ("gap", "entropy"):
            raise InputError(f"the measure of confidence must be gap or entropy, not '{measure}'")
        self.measure, self.threshold = measure, threshold

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Gaps of 0.9 and 0.5, entropies of 0.5 and 2 nats."""
        gaps = [{"measure": "gap", "threshold": threshold} for threshold in (0.9, 0.5)]
        return gaps + [{"measure": "entropy", "threshold": threshold} for threshold in (0.5, 2.0)]

    def leaves(self, features_EF: Tensor) -> Tensor:
        """Those beyond the threshold."""
        if self.measure == "gap":
            return features_EF[:, 0] >= self.threshold
        return features_EF[:, 2] <= self.threshold


class AdaInfer(_Exiting):
    """Leaves once a classifier says that the layers to come will not change the token (AdaInfer, arXiv 2403.02181).

    Logistic regression on the gap and the highest probability, one for all layers; it learns from the full model's
    outputs where the half-way token is the final one. Both cases weigh the same, however rare one of them is.

    Args:
        engine: runs the model.
        threshold: least probability, by the classifier, that the token stays.
        stride: layers between two checks; a sixth of the layers by default.
    """

    name = "adainfer"
    learns = True

    def __init__(self, engine: Engine, *, threshold: float, stride: int | None = None) -> None:
        super().__init__(engine, stride=stride)
        if not 0 < threshold < 1:
            raise InputError(f"a threshold between 0 and 1 is required, but {threshold} was given")
        self.threshold = threshold
        self._weights: NDArray[np.float64] | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Thresholds from sure to rash."""
        return [{"threshold": threshold} for threshold in (0.9, 0.7, 0.5)]

    def fit(self, training_set: TrainingSet) -> None:
        """Learns from the full model's outputs."""
        if not self.checks:  # nobody asks
            self._weights = np.array([0.0, 0.0, -CERTAIN])
            return
        with training_set.watch("adainfer", len(training_set.examples)) as advance:
            parts = []
            for example in training_set.examples:
                parts.append(example.prompt.once(("adainfer", self.checks), partial(self._examples, example)))
                advance(1, "")
        x_EF, y_E = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(np.unique(y_E)) < 2:
            # Nothing to tell apart: all may leave, or none.
            self._weights = np.array([0.0, 0.0, CERTAIN if y_E[0] else -CERTAIN])
            return
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x_EF, y_E)
        self._weights = np.append(model.coef_[0], model.intercept_)

    def _examples(self, example: Example) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Features at every check over one output, and whether the token there is the final one."""
        every = tuple(range(self.engine.units.count))
        decoder = self.engine.model.decoder
        fed = example.tokens[:-1] or example.tokens
        states = self.engine.hidden.states(example.prompt.state, fed, every).generated.every()
        final_T = decoder.finish(states[-1][:, None])[:, 0].argmax(-1)
        found, labels = [], []
        for check in self.checks:
            logits_TV = decoder.finish(states[check][:, None])[:, 0]
            found.append(features(logits_TV)[:, :2].double().cpu().numpy())
            labels.append((logits_TV.argmax(-1) == final_T).cpu().numpy())
        return np.concatenate(found), np.concatenate(labels)

    def leaves(self, features_EF: Tensor) -> Tensor:
        """Those that the classifier trusts."""
        if self._weights is None:
            raise InputError("the classifier learns from sequences first: call fit")
        *slopes, offset = self._weights.tolist()
        score_E = features_EF[:, :2].double() @ features_EF.new_tensor(slopes, dtype=torch.float64) + offset
        return score_E.sigmoid() >= self.threshold

    def state(self) -> dict[str, NDArray[Any]]:
        """Slopes of the two features, then the offset."""
        return {} if self._weights is None else {"weights": self._weights}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what another one has learned."""
        self._weights = state["weights"]
