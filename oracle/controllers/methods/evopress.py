"""EvoPress's evolution of one mask for all sequences."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.methods.fixed import levels
from oracle.controllers.methods.static import LearnedMask
from oracle.controllers.training_set import TrainingSet
from oracle.search.mask_search import MaskSearch, evolution
from oracle.types import Allocation

__all__ = ["EvoPress"]

EVALUATIONS = 16
"""Masks on the whole training part, per budget; early rounds of selection use fewer sequences."""


class EvoPress(LearnedMask):
    """One mask by evolution (EvoPress, Sieberling et al. 2024, arXiv 2410.14649).

    One parent, mutations that switch units, selection on growing samples; fitness is the KL divergence from the full
    model over its own outputs, without references. Attention and MLP are switched apart in runs with unit `sublayer`.
    """

    name = "evopress"
    folds_apart = True

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Evolves the mask."""
        engine, examples = self.engine, training_set.examples

        def objective(masks: Seq[Allocation], some: NDArray[np.int64]) -> NDArray[np.float64]:
            chosen = [examples[place] for place in some.tolist()]
            values = [engine.divergences(one.prompt.state, list(masks), one.tokens) for one in chosen]
            return -np.array(values).T

        units = engine.units.count
        search = MaskSearch(
            costs=(1.0,) * units,
            sequences=len(examples),
            objective=objective,
            influence=(0.0,) * units,
            parts=2 if engine.units.unit == "sublayer" else 1,
            seed=training_set.seed,
        )
        [self.kept] = evolution(search, [float(self.budget)], EVALUATIONS).values()
