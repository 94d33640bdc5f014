"""Masks of methods that draft: SWIFT and KnapSpec. Here nothing verifies them, so that outputs are lossy.

`oracle draft` runs both as published, lossless.
"""

from collections.abc import Sequence as Seq
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.base import SequenceController
from oracle.controllers.methods.static import LearnedMask
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.draft.adaptive import WINDOW, knapspec_mask, swift_score
from oracle.draft.searches import SKIP_RATIO, swift
from oracle.engine import DraftEngine, Engine, VerifiedOutput
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["KnapSpec", "Swift"]

STEPS = 100
"""Steps of SWIFT's search; theirs allows 1,000, one per decoded round."""

DRAFT_LENGTH = 4
"""Draft length at which KnapSpec's masks are compared."""


class Swift(LearnedMask):
    """SWIFT's layer set (Xia et al. 2024, arXiv 2410.06916, as released), from output tokens of the training part.

    Random sets and a Bayesian step every 25th, scored by agreement on 50 generated tokens. Published over attention and
    MLP apart, as in runs with unit `sublayer`; over whole layers otherwise.

    Args:
        engine: runs the model.
        skip_ratio: share of the inner units that is skipped (0.45 as released).
    """

    name = "swift"
    folds_apart = True

    def __init__(self, engine: Engine, *, skip_ratio: float = SKIP_RATIO) -> None:
        if not 0 <= skip_ratio <= 1:
            raise InputError(f"a skip ratio of 0 to 1 is required, but {skip_ratio} was given")
        units = engine.units.count
        inner = max(0, units - 2 * (units // engine.model.layers))
        super().__init__(engine, layers=units - int(inner * skip_ratio))
        self.skip_ratio = skip_ratio

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """A third and two thirds of the released ratio, and the ratio itself."""
        return [{"skip_ratio": ratio} for ratio in (0.15, 0.3, SKIP_RATIO)]

    def fit(self, training_set: TrainingSet) -> None:
        """Searches the set."""
        engine = DraftEngine(self.engine.model, self.engine.config)
        apart = self.engine.units.unit == "sublayer"
        verified = cache(lambda one: engine.verified(one.prompt.ids, one.tokens))

        def objective(masks: Seq[Allocation]) -> list[float]:
            return swift_score(engine, map(verified, training_set.examples), masks)

        mask = swift(
            objective,
            layers=engine.model.layers,
            evaluations=STEPS,
            seed=training_set.seed,
            separable=apart,
            skip_ratio=self.skip_ratio,
        )
        self.kept = mask if apart else tuple(unit // 2 for unit in mask[::2])


class KnapSpec(SequenceController):
    """KnapSpec's mask (arXiv 2602.20217, as released), chosen once per prompt, from its last tokens.

    A knapsack over attention and MLP in runs with unit `sublayer`, over whole layers otherwise. Weights come from FLOPs
    instead of measured times, so that results repeat; the mask of most expected tokens per time is that of drafts of
    at most four tokens.
    """

    name = "knapspec"

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """One mask per prompt."""
        drafts, unit = DraftEngine(self.engine.model, self.engine.config), self.engine.units.unit
        return [prompt.cached((self.name, unit), partial(self._allocation, drafts, prompt)) for prompt in prompts]

    def _allocation(self, drafts: DraftEngine, prompt: Prompt) -> Allocation:
        state = prompt.state
        output = VerifiedOutput(prompt_T=state.tokens, tokens=(prompt.first,), ended=False, cache=state.cache)
        mask, _ = knapspec_mask(drafts, self.engine, output, self._times(), DRAFT_LENGTH)
        return mask if self.engine.units.unit == "sublayer" else tuple(unit // 2 for unit in mask[::2])

    def _times(self) -> tuple[float, float]:
        """Costs of an attention and an MLP; equal ones where they are not counted apart."""
        if self.costs is None or self.engine.units.unit == "layer":
            return 1.0, 1.0
        return float(np.mean(self.costs.units[::2])), float(np.mean(self.costs.units[1::2]))

    def decision_flops(self, ran_TL: NDArray[np.bool_]) -> float:
        """One execution of each unit per state of the knapsack, of which there are at most half the units' weights."""
        if self.costs is None:
            return 0.0
        most = len(self.costs.units) // 2
        return WINDOW * sum((1 + min(place, most)) * cost for place, cost in enumerate(self.costs.units))
