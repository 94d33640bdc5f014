"""Reading a run folder: everything one search wrote, enough to redraw every figure without the model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs
from numpy.typing import NDArray

from oracle.allocations import cost_of_each
from oracle.errors import InputError
from oracle.store.checks import check_manifest, check_summary, expect, mismatch, parse_json
from oracle.store.files import damaged, read_metadata, read_table, require_columns
from oracle.store.html import run_card
from oracle.store.index import MANIFEST, accept_hint
from oracle.store.nearby import no_run
from oracle.store.run_files import RESULTS, SUMMARY, RunFiles
from oracle.store.schema import CERTIFICATE, EVALUATION, READABLE, SEQUENCES, with_prompts
from oracle.types import RunPath

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

EVALUATIONS = "evaluations"
CERTIFICATES = "certificates"


class Run(RunFiles):
    """A stored run, for reading.

    Attributes:
        folder: the run folder.
        manifest: schema version, config, model, data, versions, commit, seed.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any] | None = None) -> None:
        if manifest is None:
            raise InputError(f"a stored run is opened with Run.open({str(folder)!r:.80}), not with Run(...)")
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: RunPath) -> "Run":
        """The run at a path; a run itself, or that of an `analysis.Experiment` or a `Source`, is opened again.

        Raises:
            InputError: if it is not a run, has another schema version, or its manifest was edited.
        """
        if not isinstance(folder, str | os.PathLike):
            raise InputError(
                f"a single run is required (a path, an oracle.Run, an analysis.Experiment or a Source), not "
                f"{' '.join(repr(folder).split()):.80} of type {type(folder).__name__}"
            )
        folder = Path(folder)
        try:
            manifest = parse_json(folder / MANIFEST)
        except (OSError, ValueError) as error:
            raise InputError(no_run(folder)) from error
        found = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if not isinstance(found, int) or isinstance(found, bool) or found not in READABLE:
            raise InputError(
                f"'{folder}' has schema version {found}, but this layer-oracle reads {', '.join(map(str, READABLE))}; "
                "search again, or use the version that wrote it"
            )
        check_manifest(manifest, folder / MANIFEST, "delete the run and search again")
        run = cls(folder, manifest)
        if reason := run._difference(MANIFEST):
            raise InputError(f"'{folder / MANIFEST}' is damaged ({reason}); {accept_hint(folder)}")
        return run

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run.open({str(self.folder)!r})"

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
    def prices(self) -> tuple[list[float], float]:
        """Cost of each unit, and of a token under any allocation, in `measure`; 1 and 0 where units are counted.

        Raises:
            InputError: if the costs in the manifest are damaged.
        """
        if not self.costs:
            return [1.0] * self.units, 0.0
        try:
            return [float(price) for price in self.costs["units"]], float(self.costs["overhead"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.folder, error) from error

    @property
    def full_cost(self) -> float:
        """Cost of the full model, in `measure`."""
        units, overhead = self.prices
        return sum(units) + overhead

    @property
    def measure(self) -> str:
        """Unit of the costs: `layers` (or `sublayers`), `FLOPs/token` or `ms/token`."""
        return str(self.costs["unit_of_measure"]) if self.costs else f"{self.unit}s"

    def sequences(self) -> pd.DataFrame:
        """One row per sequence.

        Columns: `sequence`, `task`, `prompt`, `references`, `choices`, `answer`, `prompt_tokens`, and the prompt as the
        model reads it, `rendered` (text) and `prompt_ids` (token ids); both null in runs of schema version 3.
        """
        return self._sequences().to_pandas()

    def _sequences(self) -> pa.Table:
        return with_prompts(self.read("sequences", SEQUENCES))

    def evaluations(self, *, whole: bool = True) -> pd.DataFrame:
        """One row per evaluation, with one column per metric; `number` 0 of a sequence is the full model.

        `cost` is the cost that the search minimised, in `measure`, computed here and by the view of `query` alone:
        files hold the number of units.

        Args:
            whole: whether to require evaluations, and all those of sequences whose search has ended.

        Raises:
            InputError: if a part is damaged, or required evaluations are missing.
        """
        parts = self.parts(EVALUATIONS, EVALUATION)
        if whole and not parts:
            self._require_all_parts(EVALUATIONS)
            raise InputError(f"the run '{self.folder}' has no evaluations yet; {self._resume_hint}")
        table = pa.concat_tables(parts or [EVALUATION.empty_table()])
        self._check_allocations(table)
        evaluations = table.to_pandas()
        counts, ended = evaluations["sequence"].value_counts(), self.certificates().set_index("sequence")["evaluations"]
        lacking = ended.index[counts.reindex(ended.index, fill_value=0) < ended]
        if whole and len(lacking):
            raise InputError(f"the run '{self.folder}' lacks evaluations of '{lacking[0]}'; {self._resume_hint}")
        if whole:
            self._require_all_parts(EVALUATIONS)
        if self.costs:
            evaluations["cost"] = cost_of_each(evaluations["allocation"], *self.prices)
        # Parts interleave the sequences that were searched together.
        place = self._places(evaluations["sequence"], whole=whole)
        return evaluations.iloc[np.lexsort((evaluations["number"], place))].reset_index(drop=True)

    def _places(self, names: pd.Series, *, whole: bool = False) -> NDArray[np.intp]:
        """Places of sequences in the run; in the order of appearance without a table of them that is intact.

        Raises:
            InputError: if that table is damaged and the run has to be `whole`.
        """
        ordered = self.has("sequences") and (whole or self._difference("sequences.parquet") is None)
        return pd.Index(self.sequences()["sequence"] if ordered else names.unique()).get_indexer(names)

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
        - `tasks`: means of these per task, as in `analysis.queries.by_task`.
        - `controllers`: the table of `oracle compare`, and `measures`: the tables of `oracle measure` below each other,
          `measure` being the name of each; both once these commands have written them.

        No column needs quotes: `reference_texts` is another name of `references`, a reserved word.

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
            tables["sequences"] = self._sequences()
        if self._part_paths(EVALUATIONS):
            tables["evaluations"] = self._scan()
        else:
            self._require_all_parts(EVALUATIONS)
        if self.has("minimal_budgets"):
            tables["minimal_budgets"] = self.read("minimal_budgets")
        damage: dict[str, str] = {}
        for name, read in {"controllers": self._controllers, "measures": self._measures}.items():
            try:
                if (table := read()) is not None:
                    tables[name] = table
            except InputError as error:
                damage[name] = str(error)  # of no concern to queries of other tables
        prices, overhead = self.prices if self.costs else (None, 0.0)
        return Queried(
            folder=self.folder,
            tables=tables,
            criterion=str(self.manifest["config"]["criterion"]),
            units=self.units,
            prices=prices,
            overhead=overhead,
            complete=self.complete,
            damaged=damage,
        )

    def _controllers(self) -> pa.Table | None:
        """The comparison of controllers that figures show; None without one."""
        return self.read("controllers/comparison") if self.has("controllers/comparison") else None

    def _measures(self) -> pa.Table | None:
        """All measurements below each other, with the name of their table as `measure`; None without any.

        Raises:
            InputError: if one is damaged.
        """
        names = sorted(path.stem for path in (self.folder / "measures").glob("*.parquet"))
        tables = []
        for name in names:
            table = self.read(f"measures/{name}").replace_schema_metadata(None)
            tables.append(table.add_column(0, "measure", pa.array([name] * len(table), pa.string())))
        try:
            return pa.concat_tables(tables, promote_options="permissive") if tables else None
        except pa.ArrowException as error:
            raise damaged(self.folder / "measures", error) from error

    def _scan(self) -> ds.Dataset:
        """The evaluations in the order in which they were written, as a data set on disk.

        Raises:
            InputError: if a part is damaged or parts are missing.
        """
        paths = self._listed_parts(EVALUATIONS)
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
        first = read_table(paths[0], EVALUATION)
        self._check_allocations(first)
        return ds.dataset([str(path) for path in paths], schema=schemas[0], filesystem=fs.LocalFileSystem())

    def certificates(self) -> pd.DataFrame:
        """One row per sequence whose search has ended, in the order of the run.

        Columns: `sequence`, `evaluations`, `exhausted` (least number of units of which not every mask was tested),
        `executions` (layer x token units spent), `set_aside` (the reason, if it was set aside).
        """
        tables = self.parts(CERTIFICATES, CERTIFICATE)
        found = pa.concat_tables([CERTIFICATE.empty_table(), *tables]).to_pandas().drop_duplicates("sequence")
        return found.iloc[np.argsort(self._places(found["sequence"]), kind="stable")].reset_index(drop=True)

    def _check_allocations(self, evaluations: pa.Table) -> None:
        """Raises `InputError` unless evaluations are of a model with as many units as the manifest says."""
        for name in EVALUATION.names:
            if evaluations.column(name).null_count:
                raise damaged(self.folder / EVALUATIONS, f"{name}: found an empty value, expected one per evaluation")
        units, allocations = pc.list_flatten(evaluations.column("allocation")), evaluations.column("allocation")
        limits = pc.min_max(units).as_py()
        whole = pc.unique(pc.list_value_length(allocations.filter(pc.equal(evaluations.column("number"), 0))))
        wrong = [count for count in whole.to_pylist() if count != self.units]
        if wrong or (len(units) and not 0 <= limits["min"] <= limits["max"] < self.units):
            found = wrong[0] if wrong else f"more than {limits['max']}"
            expected = f"{found} {self.unit}s, as in the evaluations"
            layers = self.manifest["model"]["layers"]
            raise mismatch(self.folder / MANIFEST, "model.layers", layers, expected, accept_hint(self.folder))

    @property
    def intact(self) -> bool:
        """Whether the search has ended and all its results are as they were written and agree."""
        try:
            for name in ("sequences", *RESULTS):
                self.read(name)
            self.summary(whole=True)
        except InputError:
            return False
        return True

    def headline(self) -> dict[str, Any]:
        """The numbers of the headline that `oracle search` and `oracle query --summary` print.

        They are over the sequences that can tell something: the summary's `informative` entry, or the summary itself if
        that is all sequences. Keys are those of `analysis.Summary`, such as `per_sequence_fraction` and
        `equal_quality_fraction`.

        Raises:
            InputError: as for `summary`, or if no sequence can tell something.
        """
        summary = self.summary(whole=True)
        # Runs of earlier versions did not count them.
        if summary.get("informative_sequences", summary["sequences"]) == summary["sequences"]:
            return summary
        if summary.get("informative") is None:
            raise InputError(
                f"no sequence of '{self.folder}' can tell something, so there is no headline: summary() has the "
                "numbers over all sequences"
            )
        return dict(summary["informative"])

    def summary(self, *, whole: bool = False) -> dict[str, Any]:
        """The summary written at the end of the search: numbers over all sequences.

        The headline that commands print is over the sequences that can tell something; see `headline`.

        Args:
            whole: whether to require every entry that the command line prints.

        Raises:
            InputError: if the search has not ended, or the summary was edited, has values of wrong types or ranges, or
                does not agree with the tables.
        """
        path = self.folder / SUMMARY
        if not self.complete:
            reason = self._difference(SUMMARY) if path.is_file() else None
            raise InputError(
                f"the run '{self.folder}' has no summary: {reason or 'its search did not end'}; {self._resume_hint}"
            )
        if reason := self._difference(SUMMARY):
            raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}")
        try:
            summary = parse_json(path)
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' is damaged ({' '.join(str(error).split())}); {self._resume_hint}") from error
        check_summary(summary, path, self._resume_hint, whole=whole)
        self._compare_summary(summary, path)
        return summary

    def _compare_summary(self, summary: dict[str, Any], path: Path) -> None:
        """Raises `InputError` unless a summary agrees with the manifest and the tables."""
        known: dict[str, Any] = {"layers": self.units, "unit": self.unit}
        known |= {"criterion": self.manifest["config"]["criterion"], "cost": self.measure}
        if self.has("verification") and "verified" in summary:
            agrees = self.read("verification").to_pandas()["agrees"]
            known |= {"verified": int(agrees.sum()), "verified_of": len(agrees)}
        if self.has("minimal_budgets"):
            known["sequences"] = self.read("minimal_budgets").num_rows
        for name, value in known.items():
            if name in summary:
                expect(summary[name] == value, path, name, summary[name], f"{value}, as in the run", self._resume_hint)
