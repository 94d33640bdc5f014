"""Evaluates one controller with one setting on all sequences of a run, out of sample.

Finished results and learned parameters are stored, so that an interrupted comparison continues from them.
"""

import hashlib
import json
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from oracle.controllers.base import Controller, Kind
from oracle.controllers.methods.fixed import FixedMask, Full
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import get_controller, make, setting
from oracle.controllers.run_context import RunContext
from oracle.controllers.scoring import quality_of
from oracle.controllers.timing import Speed, Stopwatch
from oracle.controllers.training_set import TrainingSet
from oracle.controllers.weights import load_learned, save_learned
from oracle.executors import over_cores
from oracle.store.derived import DerivedTables
from oracle.store.files import delete
from oracle.utils.progress import Watch, silent

__all__ = ["CrossValidation", "Result", "parts"]

SCHEMA = pa.schema(
    [
        ("sequence", pa.string()),
        ("fold", pa.int32()),
        ("quality", pa.float64()),
        ("fraction", pa.float64()),
        ("flops", pa.float64()),
        ("tokens", pa.int32()),
        ("seconds", pa.float64()),
        ("text", pa.string()),
        ("mask", pa.list_(pa.int16())),
    ]
)
"""One row per sequence. `mask`: units that run for every sequence of the fold, of controllers that choose one mask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Result of one controller with one setting.

    Attributes:
        controller: its name.
        settings: its settings.
        kind: `sequence` or `token`.
        rows: one row per sequence, in the order of the context, with the columns of `SCHEMA`.
        speeds: measured speeds; empty without timing.
    """

    controller: str
    settings: dict[str, Any]
    kind: Kind
    rows: pd.DataFrame
    speeds: Seq[Speed]


class CrossValidation:
    """Cross-validates controllers on a run.

    Args:
        context: the run.
        quality_table: quality per allocation and sequence.
        tables: stores finished results.
        stopwatch: measures speed; None for no timing.
        watch: reports progress.
    """

    def __init__(
        self,
        context: RunContext,
        quality_table: QualityTable,
        tables: DerivedTables,
        stopwatch: Stopwatch | None,
        watch: Watch = silent,
    ) -> None:
        self._context, self._quality_table, self._tables = context, quality_table, tables
        self._stopwatch, self._watch = stopwatch, watch
        self._seed = int(context.run.manifest["seed"])

    def result(self, name: str, settings: dict[str, Any]) -> Result:
        """Result of one controller and setting, read from the tables if stored there."""
        stem = _stem(name, settings)
        kept, machine = self._tables.read(stem, SCHEMA), self._context.engine.model.machine.to_dict()
        # Speeds are those of one machine; the other results are not.
        speeds = [Speed(**values) for values in kept[1]["speeds"]] if kept and kept[1].get("machine") == machine else []
        if kept and (speeds or self._stopwatch is None):
            return self._result(name, settings, kept[0], speeds)
        rows, controller = self._run(name, settings)
        speeds = self._stopwatch.measure(controller) if self._stopwatch else []
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        about = {"controller": name, "settings": settings, "speeds": [asdict(speed) for speed in speeds]}
        self._tables.write(stem, table, {**about, "machine": machine})
        return self._result(name, settings, table, speeds)

    def _result(self, name: str, settings: dict[str, Any], table: pa.Table, speeds: Seq[Speed]) -> Result:
        rows = table.to_pandas().set_index("sequence").loc[self._context.ids].reset_index()
        return Result(controller=name, settings=settings, kind=get_controller(name).kind, rows=rows, speeds=speeds)

    def _run(self, name: str, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], Controller]:
        kind, context = get_controller(name), self._context
        split = parts(context.ids, kind.folds, self._seed) if kind.learns else [context.ids]
        folds, last = list(enumerate(split)), len(split) - 1
        if not kind.folds_apart:
            done = [self._fold(name, settings, fold, held, self._watch) for fold, held in folds]
            return [row for rows, _ in done for row in rows], done[last][1]
        device, memory = context.engine.model.network.device, context.engine.config.memory
        found = {}
        with self._watch("folds", len(folds)) as advance:
            for place, rows in over_cores(
                lambda one: self._fold(name, settings, *one, silent)[0], folds, device=device, memory_mib=memory
            ):
                found[place] = rows
                advance(1, "")
        controller = make(name, context, settings)
        self._train(controller, settings, last, split[last], self._watch)  # reads what was learned
        return [row for place in sorted(found) for row in found[place]], controller

    def _fold(
        self, name: str, settings: dict[str, Any], fold: int, held: list[str], watch: Watch
    ) -> tuple[list[dict[str, Any]], Controller]:
        """Rows of the sequences of a fold, by a controller trained on the others, and the controller."""
        kind, context = get_controller(name), self._context
        sequences = {sequence.id: sequence for sequence in context.sequences}
        controller, rows = make(name, context, settings), []
        if kind.learns:
            self._train(controller, settings, fold, held, watch)
        outputs = controller.generate([context.examples[one].prompt for one in held])
        judged = quality_of(context, controller, [sequences[one] for one in held], outputs)
        for one, output, found in zip(held, outputs, judged, strict=True):
            row = {
                "sequence": one,
                "fold": fold,
                "quality": found.value,
                "fraction": output.fraction,
                "flops": output.flops,
                "tokens": len(output.tokens),
                "seconds": output.seconds,
                "text": output.text,
            }
            if isinstance(controller, FixedMask | Full):
                row["mask"] = list(controller.allocations([context.examples[one].prompt])[0])
            if found.cost is not None:  # the quality is of scored texts, not of the output
                row |= {"fraction": found.cost / context.units, "flops": found.flops}
            rows.append(row)
        return rows, controller

    def _train(
        self, controller: Controller, settings: dict[str, Any], fold: int, held: list[str], watch: Watch
    ) -> None:
        """Trains a controller on the sequences that are not held out, or loads the stored parameters."""
        ids = [one for one in self._context.ids if one not in held]
        trained = {key: value for key, value in settings.items() if key not in controller.at_inference}
        path = self._tables.folder / "learned" / f"{_stem(controller.name, trained, fold)}.safetensors"
        about = {**self._tables.provenance, "controller": controller.name, "sequences": ids}
        if load_learned(path, controller, about["key"]):
            return
        checkpoint = path.with_suffix(f".{self._tables.key}.training")
        controller.fit(
            TrainingSet(
                examples=[self._context.examples[one] for one in ids],
                quality_table=self._quality_table,
                seed=self._seed,
                checkpoint=checkpoint,
                watch=watch,
            )
        )
        save_learned(path, controller, about)
        delete(checkpoint)


def parts(ids: Seq[str], count: int, seed: int) -> list[list[str]]:
    """Random split into `count` parts of nearly equal size, at most one part per sequence."""
    order = np.random.default_rng(seed).permutation(len(ids))
    split = np.array_split(order, min(count, len(ids)))
    return [[ids[place] for place in sorted(part.tolist())] for part in split]


def _stem(name: str, settings: dict[str, Any], fold: int | None = None) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    words = "".join(letter if letter.isalnum() or letter in "=." else "-" for letter in setting(settings))
    named = [name, words.replace("--", "-"), digest] if settings else [name]
    return "_".join(named if fold is None else [*named, f"fold{fold}"])
