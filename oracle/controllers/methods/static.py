"""One mask for all sequences: the best that a training part knows."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.controllers.base import SequenceController
from oracle.controllers.candidates import candidate_masks
from oracle.controllers.methods.fixed import check_budget
from oracle.controllers.prompts import Prompt
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["StaticBest", "budgets", "pool"]

SHARES = (0.95, 0.9, 0.8, 0.65, 0.5, 0.3)


def budgets(units: int) -> list[int]:
    """The budgets at which the best static mask is sought, in units, falling."""
    return sorted({round(share * units) for share in SHARES}, reverse=True)


def pool(training_set: TrainingSet) -> tuple[list[Allocation], NDArray[np.float64]]:
    """Masks that the training part speaks for, by rising cost, and their qualities on it (N M)."""
    quality_table = training_set.quality_table
    influence = quality_table.influence(training_set.examples)
    masks = candidate_masks(
        [quality_table.history(name) for name in training_set.ids],
        influence,
        budgets(len(influence)),
        metric=quality_table.context.metric,
        tolerance=quality_table.context.experiment.tolerance,
    )
    return masks, quality_table.qualities(training_set.ids, masks)


class StaticBest(SequenceController):
    """The mask of highest mean quality on the training part, among those within a budget.

    Args:
        engine: runs the model.
        layers: the budget.
    """

    name = "static"
    learns = True

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.budget = check_budget(layers, engine.units.count)
        self.kept: Allocation | None = None

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from nearly all layers to a third of them."""
        return [{"layers": budget} for budget in budgets(layers)]

    def fit(self, training_set: TrainingSet) -> None:
        """Chooses the mask; of equally good ones the cheapest."""
        masks, quality_NM = pool(training_set)
        within = [place for place, mask in enumerate(masks) if len(mask) <= self.budget]
        self.kept = masks[within[int(quality_NM[:, within].mean(0).argmax())]]

    def state(self) -> dict[str, NDArray[Any]]:
        """The layers that run."""
        return {} if self.kept is None else {"kept": np.array(self.kept, dtype=np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what another one has learned."""
        self.kept = tuple(state["kept"].tolist())

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The same layers for all."""
        if self.kept is None:
            raise InputError("the best static mask is chosen on sequences first: call fit")
        return [self.kept] * len(prompts)
