"""Training-free controllers based on the full model's hidden states."""

from collections.abc import Sequence as Seq
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.fixed import check_budget, levels
from oracle.controllers.methods.static import LearnedMask
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, PromptState
from oracle.engine.layer_importance import HiddenStates
from oracle.errors import InputError
from oracle.types import Allocation
from oracle.utils.text import one_of

__all__ = ["BlockInfluence", "Clasp", "ClaspWindow"]

LAST = ("raw", "normed")


class BlockInfluence(LearnedMask):
    """Skips the layers that change the hidden state least, the same for all prompts (ShortGPT, arXiv 2403.03853).

    Calibrated on outputs of the full model, without references.

    Args:
        engine: runs the model.
        layers: number of layers that run.
        last: what the last layer's influence compares its input with: `raw`, its output (the paper's equation 1), or
            `normed`, its output after the model's final norm (the released code, whose list of states ends there).
    """

    name = "influence"

    def __init__(self, engine: Engine, *, layers: int, last: str = "raw") -> None:
        super().__init__(engine, layers=layers)
        if last not in LAST:
            raise InputError(f"the last layer's state must be {one_of(LAST, last)}")
        self.last = last

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them, by the equation and by the code."""
        return [{"layers": budget, "last": last} for last in LAST for budget in levels(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Keeps the layers of highest block influence."""
        worth = training_set.quality_table.influence(training_set.examples, normed=self.last == "normed")
        self.kept = tuple(sorted(np.argsort(-np.array(worth), kind="stable")[: self.budget].tolist()))


class Clasp(SequenceController):
    """Per prompt, the mask whose hidden state at the last token is closest to the full model's (CLaSp, 2505.24196).

    Dynamic programming over hidden states, as published by Chen et al. 2025: the states of the last accepted token, and
    at most as many skips as are wanted (see `HiddenStates.skips`). The published method drafts with the mask, verifies
    with the full model and chooses again after every verification; here the mask is chosen once, after the prompt, and
    nothing verifies it, so that outputs are lossy.

    Args:
        engine: runs the model.
        layers: number of layers that run.
    """

    name = "clasp"
    window: ClassVar[int] = 1
    """Number of tokens at the end of a prompt whose states are compared."""

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)
        self._tokens = 0

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """One mask per prompt."""
        return [self._allocation(prompt) for prompt in prompts]

    def _allocation(self, prompt: Prompt) -> Allocation:
        units = self.engine.units.count
        self._tokens = min(self.window, prompt.state.length - 1)
        if self._tokens < 1:
            return tuple(range(units))  # the first token has no state before it
        before = PromptState(
            tokens=prompt.state.tokens[: -self._tokens],
            cache=[(keys[:, :, : -self._tokens], values[:, :, : -self._tokens]) for keys, values in prompt.state.cache],
            logits_V=prompt.state.logits_V,
        )
        tokens = (*prompt.state.tokens[-self._tokens :].tolist(), prompt.first)
        return self._chosen(prompt, before, tokens)

    def _chosen(self, prompt: Prompt, before: PromptState, tokens: tuple[int, ...]) -> Allocation:
        most = self.engine.units.count - self.budget

        def mask() -> Allocation:
            units = self.engine.units.count
            return HiddenStates(self.engine, before, tokens).skips([1.0] * units, range(units), most)[self.budget]

        return prompt.cached((self.name, most), mask)

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One layer execution per state of the dynamic program that skips something.

        The full model's states are not counted, because its pass has computed them. Wall-clock time is higher than
        this: the engine does not keep them and passes the last token through the model once more.
        """
        if self.costs is None:
            return 0.0
        # Before layer l there are states of 1 to min(l, M) skips.
        most = self.engine.units.count - self.budget
        return sum(min(place, most) * cost for place, cost in enumerate(self.costs.units)) * self._tokens


class ClaspWindow(Clasp):
    """CLaSp's dynamic program over the last eight tokens of the prompt and all budgets: our variant, not published.

    One run gives the mask of every budget; it costs about 130 full-model passes of one token at 30 layers.
    """

    name = "clasp-window"
    window = 8

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets of most of the layers only, because each decision is expensive."""
        return [{"layers": budget} for budget in levels(layers)[:2]]

    def _chosen(self, prompt: Prompt, before: PromptState, tokens: tuple[int, ...]) -> Allocation:
        units = self.engine.units.count

        def masks() -> dict[float, Allocation]:
            return HiddenStates(self.engine, before, tokens).skips([1.0] * units, range(units))

        return prompt.cached(self.name, masks)[float(self.budget)]

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One full pass over the window, and one layer execution per state of the dynamic program."""
        if self.costs is None:
            return 0.0
        # Before layer l there are l + 1 states: one per number of executed layers.
        return self._tokens * sum((place + 2) * cost for place, cost in enumerate(self.costs.units))
