"""Reading a run folder: everything one search wrote, enough to redraw every figure without the model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
from numpy.typing import NDArray

from oracle.errors import InputError
from oracle.store.files import damage, damaged, read_metadata, read_table, require_columns
from oracle.store.html import run_card
from oracle.store.schema import CERTIFICATE, EVALUATION, SCHEMA_VERSION, SEQUENCES

if TYPE_CHECKING:
    from oracle.store.sql import Parameters, Queried

__all__ = ["Run"]

FRAME = """
    SELECT sequence, task, prompt, "references", prompt_tokens, upper, lower, certified, budget.fraction, quality,
        full_quality, zero_quality, budget.allocation, budget.family, found.text AS output, whole.text AS full_output
    FROM minimal_budgets AS budget JOIN sequences USING (sequence)
    JOIN (SELECT sequence, number, text FROM evaluations) AS found USING (sequence, number)
    JOIN (SELECT sequence, text FROM evaluations WHERE number = 0) AS whole USING (sequence)
"""
"""One row per sequence, with the outputs of its minimal allocation and of the full model."""

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
EVALUATIONS = "evaluations"
CERTIFICATES = "certificates"

NUMBER = (int, float)

REQUIRED: dict[str, Any] = {
    "seed": int,
    "config.criterion": str,
    "config.tolerance": NUMBER,
    "config.scope": str,
    "model.fingerprint": str,
    "model.layers": int,
}
"""Required entries of a manifest -> their types."""

OPTIONAL: dict[str, Any] = {
    "config.unit": str,
    "data.hash": str,
    "costs.units": list,
    "costs.overhead": NUMBER,
    "costs.unit_of_measure": str,
}
"""Optional entries of a manifest -> their types."""


class Run:
    """A stored run, for reading.

    Attributes:
        folder: the run folder.
        manifest: schema version, config, model, data, versions, commit, seed.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Opens a run folder.

        Raises:
            InputError: if it is not a run, or has another schema version.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"a run folder is required, but '{folder}' has no readable {MANIFEST}; "
                "give a folder written by 'oracle search' or 'oracle demo'"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
            found = manifest.get("schema_version") if isinstance(manifest, dict) else None
            raise InputError(
                f"'{folder}' has schema version {found}, but this layer-oracle reads {SCHEMA_VERSION}; "
                "search again, or use the version that wrote it"
            )
        _check_manifest(manifest, folder / MANIFEST)
        return cls(folder, manifest)

    def _repr_html_(self) -> str:
        summary = self.summary() if self.complete else None
        return run_card(self.folder.name, self.manifest, units=self.units, unit=self.unit, summary=summary)

    @property
    def unit(self) -> str:
        """Unit of allocations: `layer` or `sublayer`."""
        return str(self.manifest["config"].get("unit", "layer"))

    @property
    def units(self) -> int:
        """Number of units of the model: L layers, or 2L sublayers."""
        return int(self.manifest["model"]["layers"]) * (2 if self.unit == "sublayer" else 1)

    @property
    def costs(self) -> dict[str, Any] | None:
        """The costs that the search minimised, as from `oracle.costs.Costs.to_dict`; None for layers."""
        return self.manifest.get("costs")

    @property
    def measure(self) -> str:
        """Unit of the costs: `layers` (or `sublayers`), `FLOPs/token` or `ms/token`."""
        return str(self.costs["unit_of_measure"]) if self.costs else f"{self.unit}s"

    def sequences(self) -> pd.DataFrame:
        """One row per sequence: `sequence`, `task`, `prompt`, `references`, `choices`, `answer`, `prompt_tokens`."""
        return self._read("sequences", SEQUENCES).to_pandas()

    def evaluations(self, *, whole: bool = True) -> pd.DataFrame:
        """One row per evaluation, with one column per metric; `number` 0 of a sequence is the full model.

        Args:
            whole: whether to require evaluations, and all those of sequences whose search has ended.

        Raises:
            InputError: if a part is damaged, or required evaluations are missing.
        """
        parts = self.parts(EVALUATIONS, EVALUATION)
        if whole and not parts:
            raise InputError(f"the run '{self.folder}' has no evaluations yet; {self._resume_hint}")
        evaluations = pa.concat_tables(parts or [EVALUATION.empty_table()]).to_pandas()
        counts, ended = evaluations["sequence"].value_counts(), self.certificates().set_index("sequence")["evaluations"]
        lacking = ended.index[counts.reindex(ended.index, fill_value=0) < ended]
        if whole and len(lacking):
            raise InputError(f"the run '{self.folder}' lacks evaluations of '{lacking[0]}'; {self._resume_hint}")
        # Parts interleave the sequences that were searched together.
        place = self._places(evaluations["sequence"])
        return evaluations.iloc[np.lexsort((evaluations["number"], place))].reset_index(drop=True)

    def _places(self, names: pd.Series) -> NDArray[np.intp]:
        """Places of sequences in the run; in the order of appearance if the run has no table of them."""
        order = self.sequences()["sequence"] if self.has("sequences") else names.unique()
        return pd.Index(order).get_indexer(names)

    def to_frame(self) -> pd.DataFrame:
        """One row per sequence, in the order of the run, with its minimal budget.

        Columns: `sequence`, `task`, `prompt`, `references`, `prompt_tokens`; `upper`, the least cost found (in
        `measure`), `lower`, the proven bound, and `certified`, whether they are equal; `fraction`, `upper` over the
        full model's cost; `quality` at `upper` and `full_quality`, by the run's criterion; `zero_quality`, whether the
        full model scores no more than the metric's floor; `allocation`, the units that run, `family`, `output`, and
        `full_output`.

        Raises:
            InputError: if the search has not ended, or the run is damaged.
        """
        order = self.table("minimal_budgets")["sequence"]
        return self.query(FRAME).set_index("sequence").loc[order].reset_index()

    def query(self, sql: str, parameters: "Parameters | None" = None) -> pd.DataFrame:
        """Result of one SELECT in DuckDB's SQL, read-only and restricted to this run.

        Views, with rows in no particular order:

        - `sequences`: the columns of `sequences()`.
        - `evaluations`: the columns of `evaluations()`, where `cost` is the cost that the search minimised; and
          `fraction`, the cost over the full model's. Read from disk as far as the query needs it.
        - `frontiers`: per sequence, the evaluations that are better, by the run's criterion, than all cheaper ones:
          `sequence`, `cost`, `fraction`, `quality`, `number`, `family`, `allocation`, `text`.
        - `minimal_budgets`: `sequence`, `upper`, `lower`, `certified`, `proof`, `fraction`, `allocation`, `family`,
          `number`, `quality`, `full_quality`, `zero_quality`, as in `analysis.minimal_budgets`. Available once the
          search has ended.

        The function `cost_of(allocation)` returns the cost of an allocation.

        Args:
            sql: a SELECT, also as FROM, WITH, DESCRIBE, SHOW, SUMMARIZE or PIVOT.
            parameters: values of `?` in order, or of `$name` by name.

        Raises:
            InputError: if it is not a single SELECT, it fails, or the run is damaged.
        """
        return self.select(sql, parameters).to_pandas()

    def select(self, sql: str, parameters: "Parameters | None" = None) -> pa.Table:
        """The result of `query` as an Arrow table."""
        # DuckDB is slow to import, and most commands do not need it.
        from oracle.store.sql import select

        return select(self.queried(), sql, parameters)

    def queried(self) -> "Queried":
        """The data of the run that SQL can read."""
        from oracle.store.sql import Queried, Table

        tables: dict[str, Table] = {}
        if self.has("sequences"):
            tables["sequences"] = self._read("sequences", SEQUENCES)
        if self._part_paths(EVALUATIONS):
            tables["evaluations"] = self._scan()
        if self.has("minimal_budgets"):
            tables["minimal_budgets"] = self._read("minimal_budgets")
        try:
            prices = [float(price) for price in self.costs["units"]] if self.costs else None
            overhead = float(self.costs["overhead"]) if self.costs else 0.0
            criterion = str(self.manifest["config"]["criterion"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.folder, error) from error
        return Queried(
            folder=self.folder,
            tables=tables,
            criterion=criterion,
            units=self.units,
            prices=prices,
            overhead=overhead,
            complete=self.complete,
        )

    def _scan(self) -> ds.Dataset:
        """The evaluations in the order in which they were written, as a data set on disk.

        Raises:
            InputError: if a part is damaged or parts are missing.
        """
        paths = self._part_paths(EVALUATIONS)
        for path, reason in self.damaged(EVALUATIONS):
            raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}")
        found = [read_metadata(path) for path in paths]
        schemas = [one.schema.to_arrow_schema() for one in found]
        for path, schema in zip(paths, schemas, strict=True):
            require_columns(path, schema, EVALUATION)
            if schema != schemas[0]:
                raise InputError(f"'{path}' has other columns than the parts before it: it is of another run")
        if sum(one.num_rows for one in found) < self.certificates()["evaluations"].sum():
            raise InputError(f"the run '{self.folder}' lacks evaluations; {self._resume_hint}")
        return ds.dataset([str(path) for path in paths], schema=schemas[0], filesystem=fs.LocalFileSystem())

    def certificates(self) -> pd.DataFrame:
        """One row per sequence whose search has ended, in the order of the run.

        Columns: `sequence`, `evaluations`, `exhausted` (least number of units of which not every mask was tested),
        `executions` (layer x token units spent), `set_aside` (the reason, if it was set aside).
        """
        tables = self.parts(CERTIFICATES, CERTIFICATE)
        found = pa.concat_tables([CERTIFICATE.empty_table(), *tables]).to_pandas().drop_duplicates("sequence")
        return found.iloc[np.argsort(self._places(found["sequence"]), kind="stable")].reset_index(drop=True)

    def parts(self, name: str, schema: pa.Schema) -> list[pa.Table]:
        """The parts of a table, in the order in which they were written.

        Raises:
            InputError: if a part is damaged.
        """
        tables = []
        for path in self._part_paths(name):
            if reason := damage(path):
                raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}")
            tables.append(read_table(path, schema))
            if tables[-1].schema != tables[0].schema:
                raise InputError(f"'{path}' has other columns than the parts before it: it is of another run")
        return tables

    def damaged(self, name: str) -> list[tuple[Path, str]]:
        """The damaged parts of a table, each with the reason."""
        return [(path, reason) for path in self._part_paths(name) if (reason := damage(path))]

    def _part_paths(self, name: str) -> list[Path]:
        return sorted((self.folder / name).glob("part-*.parquet"))

    @property
    def complete(self) -> bool:
        """Whether the search has ended and its summary is written."""
        return (self.folder / SUMMARY).is_file()

    @property
    def _resume_hint(self) -> str:
        return f"continue with 'oracle search --resume {self.folder}'"

    def has(self, name: str) -> bool:
        """Whether the run has a table of results of this name."""
        return (self.folder / f"{name}.parquet").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """A table of results, such as `minimal_budgets` or `assignment`.

        Raises:
            InputError: if the search ended before writing it.
        """
        return self._read(name).to_pandas()

    def _read(self, name: str, schema: pa.Schema | None = None) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"the run '{self.folder}' has no {name}: its search did not end; {self._resume_hint}")
        return read_table(path, schema)

    def summary(self) -> dict[str, Any]:
        """The summary written at the end of the search."""
        path = self.folder / SUMMARY
        if not path.is_file():
            raise InputError(f"the run '{self.folder}' has no summary: its search did not end; {self._resume_hint}")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise damaged(path, error) from error


def _check_manifest(manifest: dict[str, Any], path: Path) -> None:
    for name, kinds in {**REQUIRED, **OPTIONAL}.items():
        section, _, last = name.rpartition(".")
        inner = manifest.get(section) if section else manifest
        value = inner.get(last) if isinstance(inner, dict) else None
        absent = inner is None or (isinstance(inner, dict) and value is None)
        if absent and name in OPTIONAL:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise damaged(path, f"no {name}" if absent else f"{name} has the wrong type")
