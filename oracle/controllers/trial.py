"""One controller with one setting, on all sequences of a run, none of which it has learned from.

What is finished is kept, and what was learned too, so that a comparison can go on.
"""

import hashlib
import json
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from oracle.controllers.base import Controller, Kind, Output
from oracle.controllers.learned import load_learned, save_learned
from oracle.controllers.ledger import Ledger
from oracle.controllers.lessons import Lessons
from oracle.controllers.registry import CONTROLLERS, make, setting
from oracle.controllers.shelf import Shelf
from oracle.controllers.speed import Speed, Stopwatch
from oracle.controllers.subject import Subject
from oracle.utils.progress import Watch, silent

__all__ = ["Result", "Trials", "parts"]

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
    ]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a controller did.

    Attributes:
        controller: its name.
        settings: its settings.
        kind: `sequence` or `token`.
        rows: one a sequence, in the order of the subject: the columns of `SCHEMA`.
        speeds: as measured; empty if they were not.
    """

    controller: str
    settings: dict[str, Any]
    kind: Kind
    rows: pd.DataFrame
    speeds: Seq[Speed]


class Trials:
    """Tries controllers on a run.

    Args:
        subject: the run.
        ledger: what they may learn from.
        shelf: keeps what is finished.
        stopwatch: times them; None for no timing.
        watch: shows progress.
    """

    def __init__(
        self, subject: Subject, ledger: Ledger, shelf: Shelf, stopwatch: Stopwatch | None, watch: Watch = silent
    ) -> None:
        self._subject, self._ledger, self._shelf = subject, ledger, shelf
        self._stopwatch, self._watch = stopwatch, watch
        self._seed = int(subject.run.manifest["seed"])

    def result(self, name: str, settings: dict[str, Any]) -> Result:
        """What a controller does, from the shelf if it is there."""
        stem = _stem(name, settings)
        kept = self._shelf.read(stem, SCHEMA)
        if kept and (kept[1]["speeds"] or self._stopwatch is None):
            speeds = [Speed(**values) for values in kept[1]["speeds"]]
            return self._result(name, settings, kept[0], speeds)
        rows, controller = self._run(name, settings)
        speeds = self._stopwatch.measure(controller) if self._stopwatch else []
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        about = {"controller": name, "settings": settings, "speeds": [asdict(speed) for speed in speeds]}
        self._shelf.write(stem, table, about)
        return self._result(name, settings, table, speeds)

    def _result(self, name: str, settings: dict[str, Any], table: pa.Table, speeds: Seq[Speed]) -> Result:
        rows = table.to_pandas().set_index("sequence").loc[self._subject.ids].reset_index()
        return Result(controller=name, settings=settings, kind=CONTROLLERS[name].kind, rows=rows, speeds=speeds)

    def _run(self, name: str, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], Controller]:
        kind, subject = CONTROLLERS[name], self._subject
        sequences = {sequence.id: sequence for sequence in subject.sequences}
        split = parts(subject.ids, kind.folds, self._seed) if kind.learns else [subject.ids]
        rows: list[dict[str, Any]] = []
        for fold, held in enumerate(split):
            controller = make(name, subject, settings)
            if kind.learns:
                self._teach(controller, _stem(name, settings, fold), [one for one in subject.ids if one not in held])
            outputs = controller.generate([subject.lessons[one].prompt for one in held])
            judged = subject.quality(controller, [sequences[one] for one in held], outputs)
            for one, output, found in zip(held, outputs, judged, strict=True):
                row = {"sequence": one, "fold": fold, "quality": found.value, **_columns(output)}
                if found.cost is not None:  # the quality is that of other texts than the output
                    row |= {"fraction": found.cost / subject.units, "flops": found.flops}
                rows.append(row)
        return rows, controller

    def _teach(self, controller: Controller, stem: str, ids: list[str]) -> None:
        """Has it learn from some sequences, unless that was done before."""
        path = self._shelf.folder / "learned" / f"{stem}.safetensors"
        about = {**self._shelf.provenance, "controller": controller.name, "sequences": ids}
        if load_learned(path, controller, about["key"]):
            return
        checkpoint = path.with_suffix(f".{self._shelf.key}.training")
        controller.fit(
            Lessons(
                each=[self._subject.lessons[one] for one in ids],
                ledger=self._ledger,
                seed=self._seed,
                checkpoint=checkpoint,
                watch=self._watch,
            )
        )
        save_learned(path, controller, about)
        checkpoint.unlink(missing_ok=True)


def parts(ids: Seq[str], count: int, seed: int) -> list[list[str]]:
    """Splits sequences at random into so many parts of nearly equal size, or as many as there are sequences."""
    order = np.random.default_rng(seed).permutation(len(ids))
    split = np.array_split(order, min(count, len(ids)))
    return [[ids[place] for place in sorted(part.tolist())] for part in split]


def _columns(output: Output) -> dict[str, Any]:
    return {
        "fraction": output.fraction,
        "flops": output.flops,
        "tokens": len(output.tokens),
        "seconds": output.seconds,
        "text": output.text,
    }


def _stem(name: str, settings: dict[str, Any], fold: int | None = None) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    words = "".join(letter if letter.isalnum() or letter in "=." else "-" for letter in setting(settings))
    named = [name, words.replace("--", "-"), digest] if settings else [name]
    return "_".join(named if fold is None else [*named, f"fold{fold}"])
