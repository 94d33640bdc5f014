"""Derived tables: computed from a run, stored with it and their provenance, and recomputed if an input changed.

A table is valid only under its key, a digest of everything that it depends on.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from oracle.errors import InputError
from oracle.store.files import make_folder, read_table, write_table
from oracle.store.index import Index, run_of
from oracle.store.provenance import git_commit, versions

__all__ = ["PROVENANCE", "DerivedTables", "key_of", "origin_of", "writable"]

PROVENANCE = b"provenance"
"""Metadata entry of a table that holds its provenance as JSON."""


def key_of(*parts: Any) -> str:
    """Digest of JSON values: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()[:16]


def origin_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a run's manifest on which derived tables depend."""
    return {name: manifest[name] for name in ("model", "data", "config", "seed") if name in manifest}


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Creates the folder of a file, and turns an `OSError` while writing it into an `InputError` that names it."""
    try:
        make_folder(path.parent)
        yield
    except OSError as error:
        raise InputError(f"cannot write '{path}' ({error.strerror}); free space or make it writable") from error


class DerivedTables:
    """A folder of derived tables that share a key.

    Args:
        folder: folder of the tables.
        key: digest of everything that they depend on.
        origin: stored in each table with the key, the versions and the commit.

    Attributes:
        provenance: provenance stored in each table.
    """

    def __init__(self, folder: Path, *, key: str, origin: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = key
        self.provenance = {**origin, "key": key, "versions": versions(), "commit": git_commit()}

    def path(self, name: str) -> Path:
        """Path of a table's Parquet file."""
        return self.folder / f"{name}.parquet"

    def read(self, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]] | None:
        """A table with its provenance; None if it is missing, damaged, edited or has another key."""
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            run = run_of(path)
            index = Index.read(run) if run else None
            if run and index and index.difference(path.relative_to(run).as_posix()):
                return None
            table = read_table(path, schema)
            found = json.loads((table.schema.metadata or {})[PROVENANCE])
            return (table, found) if found["key"] == self.key else None
        except (InputError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, table: pa.Table, about: Mapping[str, Any] | None = None) -> Path:
        """Writes a table atomically, with `about` added to its provenance.

        Raises:
            InputError: if it cannot be written.
        """
        path = self.path(name)
        provenance = json.dumps({**self.provenance, **(about or {})}).encode()
        with writable(path):
            write_table(path, table.replace_schema_metadata({PROVENANCE: provenance}))
        return path
