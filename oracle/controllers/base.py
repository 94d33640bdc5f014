"""Base classes of controllers, which decide at generation time which layers run."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from oracle.config import Unit
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.costs import Conditions, Costs
from oracle.costs.flops import count_flops
from oracle.engine import Engine, Generation
from oracle.engine.gated import GatedGeneration
from oracle.engine.gates import Gate
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["Controller", "Kind", "Output", "Scored", "SequenceController", "TokenController"]

Kind = Literal["sequence", "token"]

CONTEXT = 128
"""Context length in tokens at which FLOPs are counted, the same as `oracle profile`."""


class Scored(NamedTuple):
    """The metric of one sequence or scored text under a controller.

    Attributes:
        value: the metric.
        cost: mean layers executed per token of the text; None if the output's cost applies.
        flops: the same in FLOPs, as in `Output`.
        greedy: of a scored text, whether each of its tokens is the likeliest, by the model's own probabilities.
    """

    value: float
    cost: float | None = None
    flops: float | None = None
    greedy: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """The model's output under a controller, and its cost.

    Attributes:
        family: name of the controller.
        allocation: the layers that ran; None for token controllers.
        tokens: generated token ids, including the stop token if it was reached.
        text: the decoded tokens without special tokens, up to the first stop text.
        finished: whether the output ended with a stop token.
        margin: smallest difference between the two highest logits over all steps.
        rerun: whether a near-tie made the engine evaluate the output again in a batch of one.
        cost: layers executed per generated token. In scope `decode` the first token comes from the prompt's pass; under
            a token controller, an output of that token alone has the full model's cost.
        fraction: cost over the full model's.
        flops: FLOPs per generated token: executed layers, projected keys and values of skipped layers where the policy
            requires them, the vocabulary head, and the controller's own decisions; None if they cannot be counted.
        seconds: wall-clock share of its batch, in proportion to tokens; includes decisions, excludes the prompt's pass.
    """

    family: str
    allocation: Allocation | None
    tokens: tuple[int, ...]
    text: str
    finished: bool
    margin: float
    rerun: bool
    cost: float
    fraction: float
    flops: float | None
    seconds: float = field(default=0.0)


class Controller(ABC):
    """Decides which layers run.

    `oracle.controllers.compare_run` builds a controller from its settings, fits it on part of a run's sequences if it
    `learns`, and generates the outputs of the others. A new controller derives from `SequenceController` or
    `TokenController`, takes its settings as keyword arguments, and is listed in `CONTROLLERS`.

    Args:
        engine: runs the model.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    learns: ClassVar[bool] = False
    folds: ClassVar[int] = 4
    """Number of cross-validation folds."""
    folds_apart: ClassVar[bool] = False
    """Whether folds are trained and evaluated in processes of their own, where there are cores: training is most of the
    work, and shares nothing between folds but what was evaluated before."""
    units: ClassVar[tuple[Unit, ...]] = get_args(Unit)
    """Units of the runs in which the controller works."""
    at_inference: ClassVar[tuple[str, ...]] = ()
    """Settings that training does not depend on: those that differ in nothing else share learned parameters."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Settings tried by a comparison, from expensive to cheap, for a model of L layers."""
        return [{}]

    def fit(self, training_set: TrainingSet) -> None:  # noqa: B027 - most controllers are not trained
        """Trains the controller; called before any generation if the controller `learns`."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Learned parameters as arrays; empty before `fit` and for controllers without training."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027 - see fit
        """Sets the learned parameters from the `state` of a controller with the same settings."""

    def _wrong_unit(self) -> InputError:
        return InputError(
            f"'{self.name}' requires a run with unit '{self.units[0]}', but its unit is '{self.engine.config.unit}'; "
            "choose another controller"
        )

    def _not_fitted(self) -> InputError:
        return InputError(f"'{self.name}' requires training, but has no learned state; call fit first")

    def open(self, prompts: Seq[str | Prompt]) -> list[Prompt]:
        """Runs each prompt that is still text, at full depth."""
        return [Prompt.of(self.engine, one) if isinstance(one, str) else one for one in prompts]

    def generate(self, prompts: Seq[str | Prompt]) -> list[Output]:
        """Greedy outputs, one per prompt, decoded in batches."""
        opened = self.open(prompts)
        if not opened:
            return []
        began = perf_counter()
        outputs = self._generate(opened)
        seconds = perf_counter() - began
        tokens = sum(len(output.tokens) for output in outputs)
        return [replace(output, seconds=seconds * len(output.tokens) / tokens) for output in outputs]

    @abstractmethod
    def _generate(self, prompts: Seq[Prompt]) -> list[Output]: ...

    @abstractmethod
    def score(self, prompts: Seq[Prompt], continuations: Seq[Seq[int]]) -> list[Scored]:
        """Mean log-likelihood of one continuation per prompt, in nats/token."""

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """FLOPs of the controller's own decisions over one output, given the layers that each fed token ran."""
        return 0.0

    def on(self, engine: Engine) -> Self:
        """A copy, with the learned parameters, on another engine of the same model."""
        other = copy.copy(self)
        other.engine = engine
        return other

    @cached_property
    def costs(self) -> Costs | None:
        """FLOPs per unit; None for models whose FLOPs cannot be counted."""
        model = self.engine.model
        conditions = Conditions(unit=self.engine.config.unit, context=min(CONTEXT, model.context or CONTEXT))
        try:
            return count_flops(model, conditions)
        except InputError:
            return None

    def _output(self, generation: Generation, rerun: bool, **details: Any) -> Output:
        return Output(
            family=self.name,
            tokens=generation.tokens,
            text=self.engine.text(generation.tokens),
            finished=generation.finished,
            margin=generation.margin,
            rerun=rerun,
            fraction=details["cost"] / self.engine.units.count,
            **details,
        )


class SequenceController(Controller):
    """Chooses one allocation per prompt."""

    kind: ClassVar[Kind] = "sequence"

    @abstractmethod
    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The units that run, one allocation per prompt."""

    def _generate(self, prompts: Seq[Prompt]) -> list[Output]:
        allocations = self.allocations(prompts)
        requests = [(prompt.state, allocation) for prompt, allocation in zip(prompts, allocations, strict=True)]
        return [
            self._output(
                generation,
                rerun,
                allocation=allocation,
                cost=float(len(allocation)),
                flops=self._flops(allocation, max(1, len(generation.tokens) - 1)),
            )
            for allocation, (generation, rerun) in zip(allocations, self.engine.generate(requests), strict=True)
        ]

    def _flops(self, allocation: Allocation, fed: int) -> float | None:
        if self.costs is None:
            return None
        ran_TL = np.zeros((fed, self.engine.units.count), dtype=np.bool_)
        ran_TL[:, list(allocation)] = True
        return self.costs.of(allocation) + self.decision_flops(ran_TL) / fed

    def score(self, prompts: Seq[Prompt], continuations: Seq[Seq[int]]) -> list[Scored]:
        """Mean log-likelihood of one continuation per prompt, in nats/token."""
        found = []
        for prompt, allocation, ids in zip(prompts, self.allocations(prompts), continuations, strict=True):
            [score] = self.engine.scores(prompt.state, [allocation], ids)
            found.append(Scored(score.mean, greedy=score.greedy))
        return found


class TokenController(Controller):
    """Decides per generated token and layer; prompt tokens run every layer.

    Raises:
        InputError: if the engine's units are sublayers.
    """

    kind: ClassVar[Kind] = "token"
    units: ClassVar[tuple[Unit, ...]] = ("layer",)

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        if engine.config.unit not in self.units:
            raise self._wrong_unit()

    @abstractmethod
    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The gate of a batch; rows are in the order of the prompts."""

    def _generate(self, prompts: Seq[Prompt]) -> list[Output]:
        gate = self.gate(prompts)
        found = self.engine.generate_gated([prompt.state for prompt in prompts], gate)
        return [self._gated(one, gate) for one in found]

    def _gated(self, found: GatedGeneration, gate: Gate) -> Output:
        cost, flops = self._spent(found.ran_TL, len(found.generation.tokens), gate)
        return self._output(found.generation, bool(found.generation.ties), allocation=None, cost=cost, flops=flops)

    def _spent(self, ran_TL: NDArray[np.bool_], tokens: int, gate: Gate) -> tuple[float, float | None]:
        """Layers and FLOPs per token; in scope `sequence` the first rows of `ran_TL` are the prompt's tokens."""
        fed = tokens - 1  # the first token comes from the prompt's pass
        ran_TL = ran_TL[len(ran_TL) - fed :] if fed else np.ones((1, self.engine.units.count), dtype=np.bool_)
        return float(ran_TL.sum(1).mean()), self._flops(ran_TL, propagates=gate.policy == "propagate")

    def _flops(self, ran_TL: NDArray[np.bool_], *, propagates: bool) -> float | None:
        if self.costs is None:
            return None
        layers = (ran_TL @ np.array(self.costs.units)).mean()
        states = (~ran_TL @ np.array(self.costs.states)).mean() if propagates else 0.0
        return float(layers + states + self.costs.overhead + self.decision_flops(ran_TL) / len(ran_TL))

    def score(self, prompts: Seq[Prompt], continuations: Seq[Seq[int]]) -> list[Scored]:
        """Mean log-likelihood of one continuation per prompt, in nats/token."""
        gate = self.gate(prompts)
        scores = self.engine.score_gated([prompt.state for prompt in prompts], gate, continuations)
        return [
            Scored(
                float(score.log_likelihoods_T.mean()),
                *self._spent(score.ran_TL, len(ids), gate),
                greedy=score.greedy,
            )
            for score, ids in zip(scores, continuations, strict=True)
        ]
