"""One mask for all sequences, chosen on the training part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.candidates import candidate_masks, probe_masks
from oracle.controllers.methods.fixed import FixedMask, check_budget
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.types import Allocation

__all__ = ["LearnedMask", "StaticBest", "budgets", "pool"]

SHARES = (0.95, 0.9, 0.8, 0.65, 0.5, 0.3)


def budgets(units: int) -> list[int]:
    """Budgets of the static mask that a comparison tries, in units, from high to low."""
    return sorted({round(share * units) for share in SHARES}, reverse=True)


def pool(training_set: TrainingSet) -> tuple[list[Allocation], NDArray[np.float64]]:
    """Candidate masks, by rising cost, and their qualities on the training part (N M).

    They depend on the references of the training part alone: see `oracle.controllers.candidates`.
    """
    quality_table = training_set.quality_table
    influence = quality_table.influence(training_set.examples)
    levels = budgets(len(influence))
    probes = probe_masks(influence, levels, training_set.seed)
    quality_table.qualities(training_set.ids, probes)  # evaluated together, which is faster than one by one
    masks = candidate_masks(
        [quality_table.outcomes(name, probes) for name in training_set.ids],
        levels,
        units=len(influence),
        metric=quality_table.context.metric,
        tolerance=quality_table.context.experiment.tolerance,
    )
    return masks, quality_table.qualities(training_set.ids, masks)


class LearnedMask(FixedMask):
    """One mask for all prompts, chosen by `fit` within a budget.

    Args:
        engine: runs the model.
        layers: the budget, in units.
    """

    learns = True

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)

    def state(self) -> dict[str, NDArray[Any]]:
        """The layers that run."""
        return {} if self.kept is None else {"kept": np.array(self.kept, dtype=np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Sets the layers that run."""
        self.kept = tuple(state["kept"].tolist())


class StaticBest(LearnedMask):
    """The mask of highest mean quality on the training part within a budget."""

    name = "static"

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from nearly all layers to a third of them."""
        return [{"layers": budget} for budget in budgets(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Chooses the mask; ties go to the cheapest."""
        masks, quality_NM = pool(training_set)
        within = [place for place, mask in enumerate(masks) if len(mask) <= self.budget]
        self.kept = masks[within[int(quality_NM[:, within].mean(0).argmax())]]
