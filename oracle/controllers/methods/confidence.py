"""Early exit per token, by the confidence of the vocabulary head at intermediate layers.

Every check costs one application of the head. The check at which a token exits gives the token's own logits, so that
leaving costs no second head, as in CALM; FLOPs count it so. The engine applies the head to exited tokens once more,
with the same result, and wall-clock time includes that.

The published methods train the head for its exits (CALM) or tune per task (AdaInfer); here the model is used as it is.

In shapes, X is the tokens that have not exited, Y the features.
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
from sklearn.svm import SVC
from torch import Tensor

from oracle.controllers.base import TokenController
from oracle.controllers.prompts import Example, Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, Fed, Gate
from oracle.errors import InputError
from oracle.models.decoder import Decoder
from oracle.utils.text import one_of

__all__ = ["AdaInfer", "Confidence", "Entropy", "Exits", "decayed_threshold", "features", "generated"]

CHECKS = 6
"""Approximate number of checks per token; each applies the vocabulary head, which may cost as much as many layers."""

MEASURES = ("gap", "top")
"""Measures of confidence, in the order of `features`."""

CLASSIFIERS = ("svm", "regression")

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
        leaves: which tokens exit, given their `features` and their places among the generated tokens.
    """

    def __init__(self, decoder: Decoder, checks: Seq[int], leaves: Callable[[Tensor, Tensor], Tensor]) -> None:
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
                place_RT = torch.arange(fed.start, fed.start + asked_RT.shape[1], device=asked_RT.device)
                place_X = place_RT.expand_as(asked_RT)[asked_RT]
                self._stays_RT[asked_RT] = ~self._leaves(features(logits_XV), place_X)
        return self._stays_RT


class _EarlyExitController(TokenController):
    """A controller with early exit per token.

    Args:
        engine: runs the model.
        stride: layers between two checks; a sixth of the layers by default (1 in the papers).
    """

    def __init__(self, engine: Engine, *, stride: int | None = None) -> None:
        super().__init__(engine)
        every = max(1, engine.model.layers // CHECKS) if stride is None else stride
        if every < 1:
            raise InputError(f"a stride of at least 1 layer is required, but {every} was given")
        self.checks = tuple(range(every, engine.model.layers, every))

    @abstractmethod
    def leaves(self, features_XY: Tensor, place_X: Tensor) -> Tensor:
        """Which tokens exit, given their features and their places among the generated ones, from 0 (X)."""

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same gate for all prompts."""
        return Exits(self.engine.model.decoder, self.checks, self.leaves)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """The vocabulary head, at every check before a token's exit; that of the exit gives the token's logits."""
        left_T = ran_TL.sum(1)
        checks = sum(int((left_T > check).sum()) for check in self.checks)
        return checks * (self.costs.overhead if self.costs else 0.0)


def decayed_threshold(threshold: float, temperature: float, place: Tensor, tokens: int) -> Tensor:
    """CALM's threshold at a decoding step, clip(0.9 threshold + 0.1 exp(-temperature t / N), 0, 1).

    Source: Schuster et al. 2022 (arXiv 2207.07061).

    Args:
        threshold: that of the calibration.
        temperature: tau; larger values decay faster.
        place: t, the decoding step.
        tokens: N, the greatest number of tokens of an output.
    """
    return (0.9 * threshold + 0.1 * torch.exp(-temperature * place / tokens)).clamp(0, 1)


class Confidence(_EarlyExitController):
    """Exits once the head is confident (CALM, Schuster et al. 2022, arXiv 2207.07061).

    Its two measures without training. The published thresholds are calibrated for a quality guarantee and its exits are
    trained; here thresholds are given and the exits are the model's own head.

    Args:
        engine: runs the model.
        threshold: least confidence.
        measure: `gap` (difference of the two highest probabilities) or `top` (the highest probability).
        decay: temperature of the threshold's decay with the position; None for a constant threshold.
        stride: layers between two checks; a sixth of the layers by default (1 in the papers).
    """

    name = "confidence"

    def __init__(
        self,
        engine: Engine,
        *,
        threshold: float,
        measure: str = "gap",
        decay: float | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(engine, stride=stride)
        if measure == "entropy":
            raise InputError(
                "the measure of confidence must be gap or top; for entropy choose the controller 'entropy'"
            )
        if measure not in MEASURES:
            raise InputError(f"the measure of confidence must be {one_of(MEASURES, measure)}")
        if decay is not None and not 0 <= decay < float("inf"):
            raise InputError(f"a finite decay of at least 0 is required, but {decay} was given")
        self.measure, self.threshold, self.decay = measure, threshold, decay

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Gaps of 0.9 and 0.5, the first also with a decaying threshold, and a highest probability of 0.9."""
        return [
            {"measure": "gap", "threshold": 0.9},
            {"measure": "gap", "threshold": 0.9, "decay": 4.0},
            {"measure": "gap", "threshold": 0.5},
            {"measure": "top", "threshold": 0.9},
        ]

    def leaves(self, features_XY: Tensor, place_X: Tensor) -> Tensor:
        """Tokens at or beyond the threshold (X)."""
        confidence_X = features_XY[:, MEASURES.index(self.measure)]
        if self.decay is None:
            return confidence_X >= self.threshold
        # Feeding token i gives token i + 1; token 0 comes from the prompt's pass.
        step_X, tokens = place_X.to(features_XY.dtype) + 1, self.engine.config.max_new_tokens
        return confidence_X >= decayed_threshold(self.threshold, self.decay, step_X, tokens)


class Entropy(_EarlyExitController):
    """Exits once the entropy of the head's distribution is low, in nats (BranchyNet, arXiv 1709.01686; DeeBERT).

    Args:
        engine: runs the model.
        threshold: highest entropy.
        stride: layers between two checks; a sixth of the layers by default (1 in the papers).
    """

    name = "entropy"

    def __init__(self, engine: Engine, *, threshold: float, stride: int | None = None) -> None:
        super().__init__(engine, stride=stride)
        self.threshold = threshold

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Entropies of 0.5 and 2 nats."""
        return [{"threshold": threshold} for threshold in (0.5, 2.0)]

    def leaves(self, features_XY: Tensor, place_X: Tensor) -> Tensor:
        """Tokens at or below the threshold (X)."""
        return features_XY[:, 2] <= self.threshold


class AdaInfer(_EarlyExitController):
    """Exits once a classifier predicts that the remaining layers do not change the token (AdaInfer, arXiv 2403.02181).

    One classifier for all layers, on the gap and the highest probability, trained on the full model's outputs. The
    label is whether the intermediate token is the final one; both labels have equal total weight. `svm` is the
    published kind, here with a linear kernel; the logistic `regression`, whose threshold can be set, is ours.

    Args:
        engine: runs the model.
        classifier: `svm` or `regression`.
        threshold: with `regression`, minimum predicted probability that the token does not change.
        stride: layers between two checks; a sixth of the layers by default (1 in the papers).
    """

    name = "adainfer"
    learns = True
    at_inference = ("threshold",)

    def __init__(
        self,
        engine: Engine,
        *,
        classifier: str = "regression",
        threshold: float | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(engine, stride=stride)
        if classifier not in CLASSIFIERS:
            raise InputError(f"a classifier must be {one_of(CLASSIFIERS, classifier)}")
        if classifier == "svm" and threshold is not None:
            raise InputError(f"the classifier 'svm' has no threshold, but {threshold} was given; omit it")
        if classifier == "regression" and not (threshold is not None and 0 < threshold < 1):
            raise InputError(f"a threshold between 0 and 1 is required, but {threshold} was given")
        self.classifier, self.threshold = classifier, 0.5 if threshold is None else threshold
        self._weights: NDArray[np.float64] | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The published classifier, then thresholds of the regression from high to low."""
        regressions = [{"classifier": "regression", "threshold": threshold} for threshold in (0.9, 0.7, 0.5)]
        return [{"classifier": "svm"}, *regressions]

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
        model = (
            SVC(kernel="linear", class_weight="balanced")
            if self.classifier == "svm"
            else LogisticRegression(class_weight="balanced", max_iter=1000)
        ).fit(x_XY, y_X)
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

    def leaves(self, features_XY: Tensor, place_X: Tensor) -> Tensor:
        """Tokens whose predicted probability of no change reaches the threshold; for `svm`, on its side of 0 (X)."""
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
