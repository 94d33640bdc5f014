"""Quality per (sequence, mask): from the run, or evaluated on demand and stored."""

from collections.abc import Sequence as Seq

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.controllers.prompts import Example
from oracle.controllers.run_context import RunContext
from oracle.engine import Evaluator
from oracle.engine.layer_importance import HiddenStates
from oracle.executors import over_cores, split_work
from oracle.metrics import get_metric
from oracle.store.derived import DerivedTables
from oracle.types import Allocation, Outcome, Proposal
from oracle.utils.cores import Cores
from oracle.utils.progress import Watch, silent

__all__ = ["QualityTable"]

SCHEMA = pa.schema(
    [("sequence", pa.string()), ("allocation", pa.list_(pa.int16())), ("quality", pa.float64())],
)

NAME = "evaluations"

CHUNK = 256
"""Number of outputs evaluated between two writes to disk."""


class QualityTable:
    """Quality per (sequence, mask), computed on demand and cached.

    Args:
        context: the run.
        tables: stores evaluations beyond the run's own; None to keep them in memory only.
        watch: reports progress.
    """

    def __init__(self, context: RunContext, tables: DerivedTables | None = None, watch: Watch = silent) -> None:
        self.context, self._tables, self._watch = context, tables, watch
        self._influence: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        rows = context.experiment.evaluations[["sequence", "allocation", context.metric]]
        self._searched = {(name, tuple(mask.tolist())): float(value) for name, mask, value in rows.to_numpy()}
        self._evaluated: dict[tuple[str, Allocation], float] = {}
        stored = tables.read(NAME, SCHEMA) if tables else None
        for row in stored[0].to_pylist() if stored else []:
            self._evaluated[row["sequence"], tuple(row["allocation"])] = row["quality"]

    def outcomes(self, sequence: str, masks: Seq[Allocation]) -> list[Outcome]:
        """Outcomes of masks on a sequence, with the run's metric and no text."""
        [quality_M] = self.qualities([sequence], masks)
        return [
            Outcome(
                allocation=mask,
                family="",
                tokens=(),
                text="",
                finished=True,
                margin=float("inf"),
                quality={self.context.metric: float(value)},
            )
            for mask, value in zip(masks, quality_M, strict=True)
        ]

    def influence(self, examples: Seq[Example], *, normed: bool = False) -> tuple[float, ...]:
        """Block influence per unit over the full model's outputs, the mean over sequences.

        Source: ShortGPT, Men et al. 2024 (arXiv 2403.03853); see `HiddenStates.influence` for `normed`.
        """
        return tuple(np.mean([self._influence_of(example)[normed] for example in examples], axis=0).tolist())

    def _influence_of(self, example: Example) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if example.id not in self._influence:
            states = HiddenStates(self.context.engine, example.prompt.state, example.tokens)
            self._influence[example.id] = states.influence(), states.influence(normed=True)
        return self._influence[example.id]

    def qualities(self, sequences: Seq[str], masks: Seq[Allocation]) -> NDArray[np.float64]:
        """Quality per sequence and mask (N M); missing values are evaluated by the engine and stored."""
        pairs = [(name, mask) for name in dict.fromkeys(sequences) for mask in masks]
        self._evaluate([pair for pair in pairs if pair not in self._searched and pair not in self._evaluated])
        return np.array([[self._value(name, mask) for mask in masks] for name in sequences], dtype=np.float64)

    def _value(self, sequence: str, mask: Allocation) -> float:
        found = self._searched.get((sequence, mask))
        return self._evaluated[sequence, mask] if found is None else found

    def _evaluate(self, pairs: list[tuple[str, Allocation]]) -> None:
        if not pairs:
            return
        device, memory = self.context.engine.model.network.device, self.context.engine.config.memory
        with self._watch("masks", len(pairs)) as advance:
            for start in range(0, len(pairs), CHUNK):
                by_sequence: dict[str, list[Allocation]] = {}
                for name, mask in pairs[start : start + CHUNK]:
                    by_sequence.setdefault(name, []).append(mask)
                parts = list(split_work(list(by_sequence.items()), Cores.now().available))
                for _, found in over_cores(self._evaluated_part, parts, device=device, memory_mib=memory):
                    self._evaluated |= found
                    advance(len(found), "")
                self._write()

    def _evaluated_part(self, part: Seq[tuple[str, list[Allocation]]]) -> dict[tuple[str, Allocation], float]:
        """Quality per sequence and mask, of some sequences with their masks."""
        metric, sequences = self.context.metric, {one.id: one for one in self.context.sequences}
        passes = [metric] if get_metric(metric).kind in ("likelihood", "choice") else []
        evaluator = Evaluator(self.context.engine, metrics=passes, shuffled=sequences)
        for name, _ in part:
            evaluator.set_full_output(sequences[name], self.context.examples[name].tokens)
        work = [(sequences[name], [Proposal(allocation=mask, family="") for mask in masks]) for name, masks in part]
        found = {}
        for (name, masks), outcomes in zip(part, evaluator.evaluate(work), strict=True):
            for mask, outcome in zip(masks, outcomes, strict=True):
                found[name, mask] = outcome.quality[metric]
            evaluator.close(sequences[name])
        return found

    def _write(self) -> None:
        if self._tables is not None:
            rows = [
                {"sequence": name, "allocation": list(mask), "quality": value}
                for (name, mask), value in self._evaluated.items()
            ]
            self._tables.write(NAME, pa.Table.from_pylist(rows, schema=SCHEMA))
