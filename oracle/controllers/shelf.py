"""`RUN/controllers`: what was finished is kept, each table with what it came from, so that a comparison can go on."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from oracle.errors import InputError
from oracle.store import Run, git_commit, versions
from oracle.store.files import write_table
from oracle.store.reading import read_table

__all__ = ["FOLDER", "Shelf"]

FOLDER = "controllers"

VERSION = 2
"""Moves when results of the same settings would come out differently; those of another version are made again."""

ORIGIN = ("model", "data", "config", "seed")

PROVENANCE = b"provenance"


class Shelf:
    """The tables of a run's controllers.

    Args:
        run: whose they are.
        sequences: ids of those that are looked at.

    Attributes:
        folder: where the tables are.
        key: digest of all that the run contributes to them.
    """

    def __init__(self, run: Run, sequences: list[str]) -> None:
        self.folder = run.folder / FOLDER
        origin = {name: run.manifest[name] for name in ORIGIN if name in run.manifest}
        self.key = _digest([VERSION, origin, sequences])
        self.provenance = {**origin, "key": self.key, "versions": versions(), "commit": git_commit()}

    def path(self, name: str) -> Path:
        """Where a table is."""
        return self.folder / f"{name}.parquet"

    def read(self, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]] | None:
        """A table with its provenance; None if it is not there, not whole, or of something else."""
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            table = read_table(path, schema)
            found = json.loads((table.schema.metadata or {})[PROVENANCE])
            return (table, found) if found["key"] == self.key else None
        except (InputError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, table: pa.Table, about: Mapping[str, Any] | None = None) -> Path:
        """Writes a table whole or not at all.

        Raises:
            InputError: if it cannot be written.
        """
        path = self.path(name)
        provenance = json.dumps({**self.provenance, **(about or {})}).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, table.replace_schema_metadata({PROVENANCE: provenance}))
        except OSError as error:
            raise InputError(f"cannot write '{path}' ({error.strerror}); make room or make it writable") from error
        return path


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
