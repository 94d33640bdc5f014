"""The contract of controllers: what decides, at generation time, which layers run.

Shapes: T fed tokens, L layers.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

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
"""Tokens that FLOPs are counted at, as `oracle profile` does."""


class Scored(NamedTuple):
    """What a controller made of a sequence, or of a text that it read, as a number.

    Attributes:
        value: the metric.
        cost: layers that ran for a token of the text, the mean; None if they are those of the output.
        flops: the same in FLOPs, as of an `Output`.
    """

    value: float
    cost: float | None = None
    flops: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """What the model wrote under a controller, and what it took.

    Attributes:
        family: name of the controller.
        allocation: the layers that ran; None where every token decided for itself.
        tokens: generated token ids, the stop token included if it was reached.
        text: the decoded tokens, special tokens left out.
        finished: whether the output ended by itself.
        margin: smallest difference between the two best logits over all steps.
        rerun: whether a near-tie made the engine evaluate it again, alone.
        cost: layers executed per generated token. In scope `decode` the first token comes out of the prompt's pass; an
            output that ends with it, under a controller of tokens, has the full model's cost.
        fraction: the same over the full model's.
        flops: per generated token: layers that ran, keys and values of those that did not where the policy projects
            them, the vocabulary head, and the controller's own decisions; None where they cannot be counted.
        seconds: wall-clock, its share of the batch that it was part of; the prompt's pass is left out, decisions are
            not.
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

    `oracle.controllers.compare` builds a controller from its settings, lets it learn from some sequences of a run if it
    `learns`, and has it write the outputs of others. A new one derives from `SequenceController` or `TokenController`,
    takes its settings as keyword arguments of its constructor, and is entered into `CONTROLLERS`.

    Args:
        engine: runs the model.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    learns: ClassVar[bool] = False
    folds: ClassVar[int] = 4
    """Parts that a comparison splits the sequences into: it learns from the others of each."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The settings that a comparison tries, from expensive to cheap.

        Args:
            layers: L, of the model.
        """
        return [{}]

    def fit(self, training_set: TrainingSet) -> None:  # noqa: B027 - most learn nothing
        """Learns from sequences; called before anything is generated, if the controller `learns`."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learned, as arrays; empty before that, and for controllers that learn nothing."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027 - see fit
        """Takes over what another controller of the same settings has learned, as its `state` gave it."""

    def open(self, prompts: Seq[str | Prompt]) -> list[Prompt]:
        """Runs the prompts that were not run yet, at full depth."""
        return [Prompt.of(self.engine, one) if isinstance(one, str) else one for one in prompts]

    def generate(self, prompts: Seq[str | Prompt]) -> list[Output]:
        """Greedy outputs of some prompts, decoded as batches."""
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
        """Reads a continuation of each prompt: its mean log-likelihood, in nats/token."""

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """FLOPs of the controller's own decisions over an output, given which layers its fed tokens ran."""
        return 0.0

    def on(self, engine: Engine) -> Self:
        """The same controller, with what it has learned, on another engine of the same model."""
        other = copy.copy(self)
        other.engine = engine
        return other

    @cached_property
    def costs(self) -> Costs | None:
        """FLOPs of the units; None for models whose FLOPs cannot be counted."""
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
            text=self.engine.model.text(generation.tokens),
            finished=generation.finished,
            margin=generation.margin,
            rerun=rerun,
            fraction=details["cost"] / self.engine.units.count,
            **details,
        )


class SequenceController(Controller):
    """Gives each prompt one allocation."""

    kind: ClassVar[Kind] = "sequence"

    @abstractmethod
    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The units that run for each prompt."""

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
        """Reads a continuation of each prompt: its mean log-likelihood, in nats/token."""
        return [
            Scored(self.engine.log_likelihoods(prompt.state, [allocation], ids)[0])
            for prompt, allocation, ids in zip(prompts, self.allocations(prompts), continuations, strict=True)
        ]


class TokenController(Controller):
    """Lets each generated token decide at each layer; tokens of the prompt run every layer.

    Raises:
        InputError: if the engine's units are sublayers.
    """

    kind: ClassVar[Kind] = "token"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        if engine.config.unit != "layer":
            raise InputError(f"'{self.name}' decides about layers, but the run's unit is '{engine.config.unit}'")

    @abstractmethod
    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The gate of some prompts, which it knows by their places."""

    def _generate(self, prompts: Seq[Prompt]) -> list[Output]:
        gate = self.gate(prompts)
        found = self.engine.generate_gated([prompt.state for prompt in prompts], gate)
        return [self._gated(one, gate) for one in found]

    def _gated(self, found: GatedGeneration, gate: Gate) -> Output:
        cost, flops = self._spent(found.ran_TL, len(found.generation.tokens), gate)
        return self._output(found.generation, bool(found.generation.ties), allocation=None, cost=cost, flops=flops)

    def _spent(self, ran_TL: NDArray[np.bool_], tokens: int, gate: Gate) -> tuple[float, float | None]:
        """Layers and FLOPs a token, given which layers all tokens ran, in scope `sequence` the prompt's before them."""
        fed = tokens - 1  # the first token comes out of the prompt's pass
        ran_TL = ran_TL[len(ran_TL) - fed :] if fed else np.ones((1, self.engine.units.count), dtype=np.bool_)
        return float(ran_TL.sum(1).mean()), self._flops(ran_TL, propagates=gate.policy == "propagate")

    def _flops(self, ran_TL: NDArray[np.bool_], *, propagates: bool) -> float | None:
        if self.costs is None:
            return None
        layers = (ran_TL @ np.array(self.costs.units)).mean()
        states = (~ran_TL @ np.array(self.costs.states)).mean() if propagates else 0.0
        return float(layers + states + self.costs.overhead + self.decision_flops(ran_TL) / len(ran_TL))

    def score(self, prompts: Seq[Prompt], continuations: Seq[Seq[int]]) -> list[Scored]:
        """Reads a continuation of each prompt: its mean log-likelihood, in nats/token."""
        gate = self.gate(prompts)
        scores = self.engine.score_gated([prompt.state for prompt in prompts], gate, continuations)
        return [
            Scored(float(score.log_likelihoods_T.mean()), *self._spent(score.ran_TL, len(ids), gate))
            for score, ids in zip(scores, continuations, strict=True)
        ]
