"""A run as data for others: a folder of the datasets library, labels for training routers, or JSON lines.

Every format is a folder with a README that says what its fields mean and a manifest that says where they come from.
Prompts, references and outputs are untrusted text: they stand in data files only, never in the README.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.export.cards import readme
from oracle.export.labels import labels_of, path_of
from oracle.metrics import least_quality
from oracle.store import Run, check_free, versions
from oracle.store.files import digest, write_folder
from oracle.store.index import json_text

__all__ = ["FORMATS", "Format", "export"]

Format = Literal["hf", "drllm", "polar", "jsonl"]

FORMATS = get_args(Format)

CARRIED = ("config", "model", "data", "prompts", "versions", "commit", "seed", "costs")
"""What of the run's manifest goes along."""

RIGHT = 0.5
"""Quality above which Dr.LLM's code counts an answer as right."""

Row = dict[str, Any]


def export(run: Run, form: Format, out: Path) -> dict[str, Any]:
    """Writes a finished run in another form.

    Args:
        run: the run; its model is not needed.
        form: `hf`, `drllm`, `polar` or `jsonl`.
        out: folder, which must not exist yet or be empty.

    Returns:
        What the manifest of the export says.

    Raises:
        InputError: if the form is unknown, the folder is taken, the search has not ended, or the form cannot hold it.
    """
    if form not in FORMATS:
        raise InputError(f"--format needs one of {', '.join(FORMATS)}, not '{form}'")
    if form in ("drllm", "polar") and run.unit != "layer":
        raise InputError(f"{form} labels are of whole layers, but the run is over sublayers; use hf or jsonl")
    check_free(out)
    results = _Results(run)
    tables, notes = _WRITERS[form](results)
    manifest: dict[str, Any] = {
        "format": form,
        "run": {key: run.manifest[key] for key in CARRIED if key in run.manifest},
        "exported_with": versions(),
        "sequences": len(results.rows),
        "zero_quality": sum(row["zero_quality"] for row in results.rows),
        "informative": sum(row["informative"] for row in results.rows),
        **notes,
    }

    def fill(folder: Path) -> None:
        for name, write in tables.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write(folder / name)
        manifest["digests"] = {name: digest(folder / name) for name in tables}
        (folder / "manifest.json").write_text(json_text(manifest), encoding="utf-8")
        (folder / "README.md").write_text(readme(manifest), encoding="utf-8")

    write_folder(out, fill)
    return manifest


@dataclass(frozen=True)
class _Results:
    """What a finished run says of each sequence."""

    run: Run

    @cached_property
    def rows(self) -> list[Row]:
        """One a sequence: the sequence, its minimal allocation and what that gave, the full model's output."""
        columns = ["sequence", "number", "text", "tokens"]
        evaluations = self._evaluations[columns]
        full = evaluations[evaluations["number"] == 0].rename(columns={"text": "full_output"})
        minimal = self.run.table("minimal_budgets")
        if "informative" not in minimal:  # runs of earlier versions
            minimal = minimal.assign(vacuous="", informative=~minimal["zero_quality"])
        found = minimal.merge(evaluations.rename(columns={"text": "output"}))
        # Where some sequences have no choices pandas makes the answers' indices floats.
        sequences = self.run.sequences().astype({"answer": "Int64"})
        rows = sequences.merge(found, on="sequence").merge(full[["sequence", "full_output"]], on="sequence")
        return _plain(rows.drop(columns="number"))

    @cached_property
    def frontiers(self) -> list[Row]:
        """What beats everything cheaper, by sequence, in the order of the run."""
        found = self.run.query("SELECT * FROM frontiers").rename(columns={"text": "output"})
        place = {row["sequence"]: index for index, row in enumerate(self.rows)}
        order = found["sequence"].map(place)
        return _plain(found.assign(place=order).sort_values(["place", "cost"]).drop(columns="place"))

    def labelled(self, row: Row) -> tuple[Row, list[int]]:
        """The minimal allocation as labels, or the cheapest one as good that labels can say; the full model always can.

        Returns:
            `allocation`, `output`, `quality`, and the labels.
        """
        layers = self.run.units
        if (labels := labels_of(row["allocation"], layers)) is not None:
            return row, labels
        config = self.run.manifest["config"]
        metric, least = config["criterion"], least_quality(row["full_quality"], config["tolerance"])
        tried = self._tried[row["sequence"]]
        for other in _plain(tried[tried[metric] >= least].sort_values(["cost", "number"])):
            if (labels := labels_of(other["allocation"], layers)) is not None:
                return {**other, "output": other["text"], "quality": other[metric]}, labels
        raise InputError(f"the run has no evaluation of the full model on '{row['sequence']}'")

    @cached_property
    def _evaluations(self) -> pd.DataFrame:
        return self.run.evaluations()

    @cached_property
    def _tried(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self._evaluations[~self._evaluations["dropped"]].groupby("sequence")))


_Written = tuple[dict[str, Callable[[Path], Any]], Row]
"""File name -> what writes it; more for the manifest."""


def _hf(results: _Results) -> _Written:
    tables = {"sequences": results.rows, "frontiers": results.frontiers}

    def writer(rows: list[Row]) -> Callable[[Path], Any]:
        return lambda scratch: pq.write_table(pa.Table.from_pylist(rows), scratch)

    return {f"{name}.parquet": writer(rows) for name, rows in tables.items()}, {}


def _drllm(results: _Results) -> _Written:
    rows, replaced = [], 0
    for row in results.rows:
        chosen, labels = results.labelled(row)
        replaced += chosen is not row
        rows.append(
            {
                "id": row["sequence"],
                "question": row["prompt"],
                "prompt_ids": row["prompt_ids"],
                "answer": _answer(row),
                "optimal_layer_config": labels,
                "references": row["references"],
                "task": row["task"],
                "output": chosen["output"],
                "quality": chosen["quality"],
                "full_quality": row["full_quality"],
                "zero_quality": row["zero_quality"],
                "informative": row["informative"],
                "minimal": chosen is row,
            }
        )
    told = [row for row in rows if row["informative"]]
    data = results.run.manifest.get("data", {}).get("source") or "layer-oracle"
    # The released trainer reads parallel lists, and expects other responses where a name contains `squadv2`.
    training = {
        "model_name": results.run.manifest["model"].get("id"),
        "dataset": re.sub("squadv2", "squad-v2", Path(data).stem, flags=re.IGNORECASE),
        "questions": [row["question"] for row in told],
        "best_path": [path_of(row["optimal_layer_config"]) for row in told],
        "best_response": [row["output"] for row in told],
        "original_correct": [int(row["full_quality"] > RIGHT) for row in told],
    }
    written = {"labels.jsonl": _lines(rows), "train/layer_oracle.json": _object(training)}
    return written, {"not_minimal": replaced, "not_in_training": len(rows) - len(told)}


def _polar(results: _Results) -> _Written:
    """Per sequence the allocations that qualify with a quality above zero, and all others."""
    samples = []
    metric = results.run.manifest["config"]["criterion"]
    tolerance = results.run.manifest["config"]["tolerance"]
    by_sequence = dict(iter(results.run.evaluations().groupby("sequence")))
    for row in results.rows:
        least = least_quality(row["full_quality"], tolerance)
        valid: list[list[int]] = []
        invalid: list[list[int]] = []
        for one in _plain(by_sequence[row["sequence"]].sort_values(["cost", "number"])):
            right = not one["dropped"] and one[metric] > 0 and one[metric] >= least
            (valid if right else invalid).append(one["allocation"])
        samples.append(
            {
                "question_id": row["sequence"],
                "question": row["prompt"],
                "gt_ans": _answer(row),
                "initial_score": row["full_quality"],
                "final_valid_transitions": valid,
                "final_invalid_transitions": invalid,
            }
        )
    return {"samples.json": _object({"samples": samples})}, {}


def _jsonl(results: _Results) -> _Written:
    points: dict[str, list[Row]] = {}
    for point in results.frontiers:
        points.setdefault(point["sequence"], []).append({key: point[key] for key in point if key != "sequence"})
    rows = [{**row, "frontier": points.get(row["sequence"], [])} for row in results.rows]
    return {"sequences.jsonl": _lines(rows)}, {}


_WRITERS: dict[str, Callable[[_Results], _Written]] = {
    "hf": _hf,
    "drllm": _drllm,
    "polar": _polar,
    "jsonl": _jsonl,
}


def _answer(row: Row) -> str:
    """The first reference, or the right choice."""
    right = row["choices"][row["answer"]] if row["answer"] is not None and row["choices"] else ""
    return next(iter(row["references"] or []), right)


def _object(value: Row) -> Callable[[Path], Any]:
    text = json.dumps(value, allow_nan=False, indent=1) + "\n"
    return lambda scratch: scratch.write_text(text, encoding="ascii")


def _lines(rows: list[Row]) -> Callable[[Path], Any]:
    # ASCII alone: some readers take a line separator inside a text for the end of a line.
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    return lambda scratch: scratch.write_text(text, encoding="ascii")


def _plain(table: pd.DataFrame) -> list[Row]:
    return [{str(key): _value(one) for key, one in row.items()} for row in table.to_dict("records")]


def _value(value: Any) -> Any:
    """As JSON has it: lists for arrays, none for what is no number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_value(one) for one in value]
    return None if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)) else value
