"""The run folder: everything one search wrote, enough to redraw every figure without the model."""

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.store.files import write_json, write_table
from oracle.store.schema import EVALUATION, SCHEMA_VERSION, SEQUENCES, evaluations_table, sequences_table
from oracle.types import Outcome, Sequence

__all__ = ["Run", "RunWriter", "check_free"]

MANIFEST = "manifest.json"
EVALUATIONS = "evaluations"

NEEDED = {"config": ("criterion", "tolerance", "scope"), "model": ("fingerprint", "layers")}
"""Entries of a manifest that reading a run depends on, besides the seed."""


class Run:
    """A stored run, for reading.

    Attributes:
        folder: where it is.
        manifest: schema version, config, model, data, versions, commit, seed.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Opens a run folder.

        Raises:
            InputError: if it is no run, or one of another schema version.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"a run folder is required, but '{folder}' has no readable {MANIFEST}; "
                "give the folder that 'oracle search' or 'oracle demo' named"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
            found = manifest.get("schema_version") if isinstance(manifest, dict) else None
            raise InputError(
                f"'{folder}' has schema version {found}, but this layer-oracle reads {SCHEMA_VERSION}; "
                "search again, or use the version that wrote it"
            )
        _check_manifest(manifest, folder / MANIFEST)
        return cls(folder, manifest)

    @property
    def unit(self) -> str:
        """What allocations are made of: `layer` or `sublayer`."""
        return str(self.manifest["config"].get("unit", "layer"))

    @property
    def units(self) -> int:
        """How many units the model has: L layers, or 2L sublayers."""
        return int(self.manifest["model"]["layers"]) * (2 if self.unit == "sublayer" else 1)

    def sequences(self) -> pd.DataFrame:
        """One row a sequence: `sequence`, `task`, `prompt`, `references`, `choices`, `answer`, `prompt_tokens`."""
        return self._small("sequences", SEQUENCES).to_pandas()

    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation, with a column per metric; `number` 0 of a sequence is the full model."""
        parts = sorted((self.folder / EVALUATIONS).glob("part-*.parquet"))
        if not parts:
            raise InputError(f"the run '{self.folder}' has no evaluations yet; search again")
        tables = [_read(part, EVALUATION) for part in parts]
        for part, table in zip(parts, tables, strict=True):
            if table.schema != tables[0].schema:
                raise InputError(
                    f"'{part}' has other columns than '{parts[0].name}': it is damaged or of another run; "
                    "delete the run and search again"
                )
        table = pa.concat_tables(tables).to_pandas()
        # Sequences are searched side by side, and so they are written.
        names = self.sequences()["sequence"] if self.has("sequences") else table["sequence"].unique()
        place = pd.Index(names).get_indexer(table["sequence"])
        return table.iloc[np.lexsort((table["number"], place))].reset_index(drop=True)

    def has(self, name: str) -> bool:
        """Whether there is a table of results by this name."""
        return (self.folder / f"{name}.parquet").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's small tables, such as `minimal_budgets` or `assignment`.

        Raises:
            InputError: if the search did not get so far.
        """
        return self._small(name).to_pandas()

    def _small(self, name: str, schema: pa.Schema | None = None) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"the run '{self.folder}' has no {name}: its search did not end; search again")
        return _read(path, schema)

    def summary(self) -> dict[str, Any]:
        """The numbers that the search ended with."""
        path = self.folder / "summary.json"
        if not path.is_file():
            raise InputError(f"the run '{self.folder}' has no summary: its search did not end; search again")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error


def _check_manifest(manifest: dict[str, Any], path: Path) -> None:
    needed = [("seed",), *((section, name) for section, names in NEEDED.items() for name in names)]
    for keys in needed:
        value: Any = manifest
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise _damaged(path, f"no {'.'.join(keys)}")


def _read(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A table, if it is whole and has the columns it must have."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    for field in schema or ():
        if field.name not in table.column_names or table.schema.field(field.name).type != field.type:
            raise _damaged(path, f"no column {field.name}")
    return table


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"'{path}' is damaged ({' '.join(str(reason).split())}); delete the run and search again")


class RunWriter:
    """A run folder, for its one writer.

    Evaluations are appended in parts, each written whole or not at all.

    Args:
        folder: must not exist yet, or be empty.
        manifest: config, model, data and the rest.

    Raises:
        InputError: if something is there already; it is left as it is.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        check_free(folder)
        try:
            (folder / EVALUATIONS).mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot write to '{folder}' ({error.strerror}); give another --out") from error
        self._parts = 0
        write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **manifest})

    def write_sequences(self, sequences: Seq[Sequence], prompt_tokens: Seq[int]) -> None:
        """Writes the sequences, once."""
        write_table(self.folder / "sequences.parquet", sequences_table(sequences, prompt_tokens))

    def append(self, rows: Seq[tuple[str, int, Outcome]], qualities: Seq[str]) -> None:
        """Writes one part: (sequence id, number within the sequence, outcome) a row."""
        path = self.folder / EVALUATIONS / f"part-{self._parts:05d}.parquet"
        write_table(path, evaluations_table(rows, qualities))
        self._parts += 1

    def write_result(self, name: str, table: pd.DataFrame) -> None:
        """Writes a small table of results."""
        write_table(self.folder / f"{name}.parquet", pa.Table.from_pandas(table, preserve_index=False))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the numbers of the run; with them the run is complete."""
        write_json(self.folder / "summary.json", summary)


def check_free(folder: Path) -> None:
    """Refuses a folder that holds anything.

    Raises:
        InputError: if something is there, or the path leads nowhere.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise InputError(f"cannot write to '{folder}' ({error.strerror}); give another --out") from error
    if taken:
        raise InputError(f"'{folder}' is there already and is left as it is; give another --out or remove it")
