"""Training-free controllers based on the full model's hidden states."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.fixed import check_budget, levels
from oracle.controllers.methods.static import LearnedMask
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, PromptState
from oracle.engine.layer_importance import HiddenStates
from oracle.types import Allocation

__all__ = ["BlockInfluence", "Clasp"]

WINDOW = 8
"""Number of tokens at the end of a prompt that CLaSp uses."""


class BlockInfluence(LearnedMask):
    """Skips the layers that change the hidden state least, the same for all prompts (ShortGPT, arXiv 2403.03853).

    Calibrated on outputs of the full model, without references.
    """

    name = "influence"

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Keeps the layers of highest block influence."""
        ranked = np.argsort(-np.array(training_set.quality_table.influence(training_set.examples)), kind="stable")
        self.kept = tuple(sorted(ranked[: self.budget].tolist()))


class Clasp(SequenceController):
    """Per prompt, the mask whose hidden states at the prompt's end are closest to the full model's.

    Dynamic programming over hidden states (CLaSp, Chen et al. 2025, arXiv 2505.24196; see `HiddenStates.skips`). The
    paper drafts with the mask and verifies with the full model; here the mask is chosen once, after the prompt, without
    verification.

    Args:
        engine: runs the model.
        layers: number of layers that run.
    """

    name = "clasp"

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)
        self._window = 0

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets of most of the layers only, because each decision is expensive."""
        return [{"layers": budget} for budget in levels(layers)[:2]]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """One mask per prompt."""
        return [self._allocation(prompt) for prompt in prompts]

    def _allocation(self, prompt: Prompt) -> Allocation:
        units, length = self.engine.units.count, prompt.state.length
        window = min(WINDOW, length - 1)
        if window < 1:
            return tuple(range(units))  # the window would be empty
        before = PromptState(
            tokens=prompt.state.tokens[:-window],
            cache=[(keys[:, :, :-window], values[:, :, :-window]) for keys, values in prompt.state.cache],
            logits_V=prompt.state.logits_V,
        )
        tokens = (*prompt.state.tokens[-window:].tolist(), prompt.first)
        self._window = window

        def masks() -> dict[float, Allocation]:
            return HiddenStates(self.engine, before, tokens).skips([1.0] * units, range(units))

        return prompt.cached("clasp", masks)[float(self.budget)]

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One full pass over the window, and one layer execution per state of the dynamic program."""
        if self.costs is None:
            return 0.0
        # Before layer l there are l + 1 states: one per number of executed layers.
        executions = sum((place + 2) * cost for place, cost in enumerate(self.costs.units))
        return self._window * executions
