"""Early exit per token, by the confidence of the vocabulary head at intermediate layers.

Every check costs one application of the head, which FLOPs and wall-clock time include. In shapes, X is the tokens that
have not exited, Y the features.
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
"""Approximate number of checks per token; each applies the vocabulary head, which may cost as much as many layers."""

CERTAIN_LOGIT = 20.0
"""Logit of a label that held in all training examples."""


def generated(fed: Fed, count: int) -> NDArray[np.bool_]:
    """Whether each of the next `count` tokens is a generated one rather than the prompt's (T)."""
    return np.arange(fed.start, fed.start + count) >= 0


def features(logits_XV: Tensor) -> Tensor:
    """Confidence features: difference of the two highest probabilities, the highest, entropy in nats (X Y).

    By the model's own probabilities, before any processor of `generation_config`.
    """
    log_XV = logits_XV.float().log_softmax(-1)
    best_X2 = log_XV.topk(2, dim=-1).values.exp()
    entropy_X = -(log_XV.exp() * log_XV).sum(-1)
    return torch.stack([best_X2[:, 0] - best_X2[:, 1], best_X2[:, 0], entropy_X], dim=-1)


class Exits(Gate):
    """Early-exit gate: a token skips all layers after the first check that passes.

    Keys and values of skipped layers are computed from the state at the exit, as in CALM.

    Args:
        decoder: applies the final norm and the head.
        checks: layers before which a check runs.
        leaves: which tokens exit, given their `features`.
    """

    def __init__(self, decoder: Decoder, checks: Seq[int], leaves: Callable[[Tensor], Tensor]) -> None:
        self._decoder, self._checks, self._leaves = decoder, frozenset(checks), leaves
        self._stays_RT = torch.empty(0)

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Whether each token runs the layer (R T): those that have not exited."""
        if layer == 0:
            self._stays_RT = torch.ones(hidden_RTD.shape[:2], dtype=torch.bool, device=hidden_RTD.device)
        if layer in self._checks:
            own_T = torch.from_numpy(generated(fed, hidden_RTD.shape[1])).to(hidden_RTD.device)
            asked_RT = self._stays_RT & own_T
            if bool(asked_RT.any()):
                logits_XV = self._decoder.finish(hidden_RTD[asked_RT][:, None])[:, 0]
                self._stays_RT = self._stays_RT.clone()
                self._stays_RT[asked_RT] = ~self._leaves(features(logits_XV))
        return self._stays_RT


class _EarlyExitController(TokenController):
    """A controller with early exit per token.

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
    def leaves(self, features_XY: Tensor) -> Tensor:
        """Which tokens exit (X)."""

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same gate for all prompts."""
        return Exits(self.engine.model.decoder, self.checks, self.leaves)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """The vocabulary head, at every check up to a token's exit."""
        left_T = ran_TL.sum(1)
        checks = sum(int((left_T >= check).sum()) for check in self.checks)
        return checks * (self.costs.overhead if self.costs else 0.0)


class Confidence(_EarlyExitController):
    """Exits once the softmax gap is high or the entropy low (CALM, Schuster et al. 2022, arXiv 2207.07061).

    Args:
        engine: runs the model.
        measure: `gap` (difference of the two highest probabilities) or `entropy` (nats).
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

    def leaves(self, features_XY: Tensor) -> Tensor:
        """Tokens beyond the threshold (X)."""
        if self.measure == "gap":
            return features_XY[:, 0] >= self.threshold
        return features_XY[:, 2] <= self.threshold


class AdaInfer(_EarlyExitController):
    """Exits once a classifier predicts that the remaining layers do not change the token (AdaInfer, arXiv 2403.02181).

    One logistic regression for all layers, on the gap and the highest probability, trained on the full model's outputs.
    The label is whether the intermediate token is the final one; both labels have equal total weight.

    Args:
        engine: runs the model.
        threshold: minimum predicted probability that the token does not change.
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
        """Thresholds from high to low."""
        return [{"threshold": threshold} for threshold in (0.9, 0.7, 0.5)]

    def fit(self, training_set: TrainingSet) -> None:
        """Trains the classifier on the full model's outputs."""
        if not self.checks:  # the classifier is never used
            self._weights = np.array([0.0, 0.0, -CERTAIN_LOGIT])
            return
        with training_set.watch("adainfer", len(training_set.examples)) as advance:
            parts = []
            for example in training_set.examples:
                parts.append(example.prompt.cached(("adainfer", self.checks), partial(self._examples, example)))
                advance(1, "")
        x_XY, y_X = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(np.unique(y_X)) < 2:
            # One label only: all tokens exit, or none.
            self._weights = np.array([0.0, 0.0, CERTAIN_LOGIT if y_X[0] else -CERTAIN_LOGIT])
            return
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x_XY, y_X)
        self._weights = np.append(model.coef_[0], model.intercept_)

    def _examples(self, example: Example) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Features at every check over one output, and whether the intermediate token is the final one."""
        every = tuple(range(self.engine.units.count))
        decoder = self.engine.model.decoder
        fed = example.tokens[:-1] or example.tokens
        states = self.engine.hidden.states(example.prompt.state, fed, every).generated.every()
        prompt_T = example.prompt.state.tokens
        # The state of token t predicts token t + 1.
        final_T = self.engine.best_tokens(decoder.finish(states[-1][:, None])[:, 0], prompt_T, example.tokens, 1)
        found, labels = [], []
        for check in self.checks:
            logits_TV = decoder.finish(states[check][:, None])[:, 0]
            found.append(features(logits_TV)[:, :2].double().cpu().numpy())
            found_T = self.engine.best_tokens(logits_TV, prompt_T, example.tokens, 1)
            labels.append((found_T == final_T).cpu().numpy())
        return np.concatenate(found), np.concatenate(labels)

    def leaves(self, features_XY: Tensor) -> Tensor:
        """Tokens whose predicted probability of no change reaches the threshold (X)."""
        if self._weights is None:
            raise self._not_fitted()
        *slopes, offset = self._weights.tolist()
        score_X = features_XY[:, :2].double() @ features_XY.new_tensor(slopes, dtype=torch.float64) + offset
        return score_X.sigmoid() >= self.threshold

    def state(self) -> dict[str, NDArray[Any]]:
        """Slopes of the two features, then the offset."""
        return {} if self._weights is None else {"weights": self._weights}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the learned parameters."""
        self._weights = state["weights"]
