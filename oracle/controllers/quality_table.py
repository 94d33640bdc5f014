"""Qualities of allocations by sequence: those that the run has, and those that are evaluated when they are asked for.

Shapes: N sequences, M masks, L layers.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Seq

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.controllers.prompts import Example
from oracle.controllers.run_context import RunContext
from oracle.engine import Evaluator
from oracle.engine.layer_importance import HiddenStates
from oracle.metrics import get_metric
from oracle.store import outcomes_of
from oracle.store.derived import DerivedTables
from oracle.types import Allocation, Outcome, Proposal
from oracle.utils.progress import Watch, silent

__all__ = ["QualityTable"]

SCHEMA = pa.schema(
    [("sequence", pa.string()), ("allocation", pa.list_(pa.int16())), ("quality", pa.float64())],
)

NAME = "evaluations"

TOGETHER = 256
"""Outputs evaluated between two writes to disk."""


class QualityTable:
    """What controllers may know about allocations.

    Args:
        context: the run.
        tables: keeps what was evaluated beside the run's own; None for nowhere.
        watch: shows progress.
    """

    def __init__(self, context: RunContext, tables: DerivedTables | None = None, watch: Watch = silent) -> None:
        self.context, self._tables, self._watch = context, tables, watch
        self._influence: dict[str, tuple[float, ...]] = {}
        rows = context.experiment.evaluations[["sequence", "allocation", context.metric]]
        self._known = {(name, tuple(mask.tolist())): float(value) for name, mask, value in rows.to_numpy()}
        self._own: dict[tuple[str, Allocation], float] = {}
        kept = tables.read(NAME, SCHEMA) if tables else None
        for row in kept[0].to_pylist() if kept else []:
            self._own[row["sequence"], tuple(row["allocation"])] = row["quality"]

    def history(self, sequence: str) -> list[Outcome]:
        """What the run's search found for a sequence."""
        rows = self.context.experiment.evaluations
        return [outcome for _, outcome in outcomes_of(rows[rows["sequence"] == sequence])]

    def influence(self, examples: Seq[Example]) -> tuple[float, ...]:
        """Block influence of each unit over the full model's outputs, the mean over sequences.

        Source: ShortGPT, Men et al. 2024 (arXiv 2403.03853), equation 1.
        """
        return tuple(np.mean([self._influence_of(example) for example in examples], axis=0).tolist())

    def _influence_of(self, example: Example) -> tuple[float, ...]:
        if example.id not in self._influence:
            states = HiddenStates(self.context.engine, example.prompt.state, example.tokens)
            self._influence[example.id] = states.influence()
        return self._influence[example.id]

    def qualities(self, sequences: Seq[str], masks: Seq[Allocation]) -> NDArray[np.float64]:
        """Quality of every mask on every sequence (N M); what is not known is run by the engine, and kept."""
        self._evaluate({name: [mask for mask in masks if not self._knows(name, mask)] for name in sequences})
        return np.array([[self._value(name, mask) for mask in masks] for name in sequences], dtype=np.float64)

    def _knows(self, sequence: str, mask: Allocation) -> bool:
        return (sequence, mask) in self._known or (sequence, mask) in self._own

    def _value(self, sequence: str, mask: Allocation) -> float:
        found = self._known.get((sequence, mask))
        return self._own[sequence, mask] if found is None else found

    def _evaluate(self, wanted: dict[str, list[Allocation]]) -> None:
        pairs = [(name, mask) for name, masks in wanted.items() for mask in masks]
        if not pairs:
            return
        metric, sequences = self.context.metric, {one.id: one for one in self.context.sequences}
        passes = [metric] if get_metric(metric).kind in ("likelihood", "choice") else []
        evaluator = Evaluator(self.context.engine, metrics=passes, shuffled=sequences)
        with self._watch("masks", len(pairs)) as advance:
            for some in _cut(pairs):
                by_sequence: dict[str, list[Allocation]] = {}
                for name, mask in some:
                    by_sequence.setdefault(name, []).append(mask)
                for name in by_sequence:
                    evaluator.know_full(sequences[name], self.context.examples[name].tokens)
                work = [
                    (sequences[name], [Proposal(allocation=mask, family="") for mask in masks])
                    for name, masks in by_sequence.items()
                ]
                for (name, masks), outcomes in zip(by_sequence.items(), evaluator.evaluate(work), strict=True):
                    for mask, outcome in zip(masks, outcomes, strict=True):
                        self._own[name, mask] = outcome.quality[metric]
                    evaluator.close(sequences[name])
                self._keep()
                advance(len(some), "")

    def _keep(self) -> None:
        if self._tables is not None:
            rows = [
                {"sequence": name, "allocation": list(mask), "quality": value}
                for (name, mask), value in self._own.items()
            ]
            self._tables.write(NAME, pa.Table.from_pylist(rows, schema=SCHEMA))


def _cut(pairs: list[tuple[str, Allocation]]) -> Iterable[list[tuple[str, Allocation]]]:
    return (pairs[start : start + TOGETHER] for start in range(0, len(pairs), TOGETHER))
