"""Controllers without training that look at the full model's hidden states."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.fixed import check_budget, levels
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine, PromptState
from oracle.engine.layer_importance import HiddenStates
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["BlockInfluence", "Clasp"]

WINDOW = 8
"""Tokens at the end of a prompt that CLaSp looks at."""


class BlockInfluence(SequenceController):
    """Drops the layers that change the hidden state least, the same ones for all (ShortGPT, arXiv 2403.03853).

    It is calibrated on outputs of the full model, without looking at references.

    Args:
        engine: runs the model.
        layers: how many run.
    """

    name = "influence"
    learns = True

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)
        self.kept: Allocation | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Ranks the layers."""
        ranked = np.argsort(-np.array(training_set.quality_table.influence(training_set.examples)), kind="stable")
        self.kept = tuple(sorted(ranked[: self.budget].tolist()))

    def state(self) -> dict[str, NDArray[Any]]:
        """The layers that run."""
        return {} if self.kept is None else {"kept": np.array(self.kept, dtype=np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what another one has learned."""
        self.kept = tuple(state["kept"].tolist())

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The same layers for all."""
        if self.kept is None:
            raise InputError("block influence is calibrated on sequences first: call fit")
        return [self.kept] * len(prompts)


class Clasp(SequenceController):
    """For each prompt the mask whose states stay closest to the full model's at the prompt's end.

    Dynamic programming over hidden states (CLaSp, Chen et al. 2025, arXiv 2505.24196; see `HiddenStates.skips`). They
    draft with the mask and verify by the full model; here it is decided once, after the prompt, and nothing verifies.

    Args:
        engine: runs the model.
        layers: how many run.
    """

    name = "clasp"

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)
        self._looked = 0

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets of most of the layers: deciding takes time."""
        return [{"layers": budget} for budget in levels(layers)[:2]]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """A mask for each prompt."""
        return [self._allocation(prompt) for prompt in prompts]

    def _allocation(self, prompt: Prompt) -> Allocation:
        units, length = self.engine.units.count, prompt.state.length
        looked = min(WINDOW, length - 1)
        if looked < 1:
            return tuple(range(units))  # nothing to look at
        before = PromptState(
            tokens=prompt.state.tokens[:-looked],
            cache=[(keys[:, :, :-looked], values[:, :, :-looked]) for keys, values in prompt.state.cache],
            logits_V=prompt.state.logits_V,
        )
        tokens = (*prompt.state.tokens[-looked:].tolist(), prompt.first)
        self._looked = looked

        def masks() -> dict[float, Allocation]:
            return HiddenStates(self.engine, before, tokens).skips([1.0] * units, range(units))

        return prompt.once("clasp", masks)[float(self.budget)]

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One full pass over the tokens looked at, and every state of the programme through one layer."""
        if self.costs is None:
            return 0.0
        # Before layer l there are l + 1 states: one for each number of layers that ran.
        executions = sum((place + 2) * cost for place, cost in enumerate(self.costs.units))
        return self._looked * executions
