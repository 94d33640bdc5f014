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
from oracle.store.index import difference
from oracle.store.provenance import git_commit, versions

__all__ = ["PROVENANCE", "DerivedTables", "key_of", "origin_of", "writable"]

PROVENANCE = b"provenance"
"""Metadata entry of a table that holds its provenance as JSON."""


def key_of(*parts: Any) -> str:
    """Digest of JSON values: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()[:16]


UNRELATED = ("schema_version", "versions", "commit", "machine", "rounding", "continues")
"""Entries of a run's manifest on which nothing that is derived from it depends."""


def origin_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a run's manifest on which derived tables depend: model, data, prompts, settings, costs."""
    return {name: value for name, value in manifest.items() if name not in UNRELATED}


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
        provenance: provenance stored in each table; `origin` is part of it.
    """

    def __init__(self, folder: Path, *, key: str, origin: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = key
        self.origin = origin
        self.provenance = {**origin, "key": key, "versions": versions(), "commit": git_commit()}

    def in_folder(self, folder: Path) -> "DerivedTables":
        """Tables of the same key and origin in another folder."""
        return DerivedTables(folder, key=self.key, origin=self.origin)

    def path(self, name: str) -> Path:
        """Path of a table's Parquet file."""
        return self.folder / f"{name}.parquet"

    def read(self, name: str, schema: pa.Schema, *, any_key: bool = False) -> tuple[pa.Table, dict[str, Any]] | None:
        """A table with its provenance; None if missing, damaged, edited or (unless `any_key`) with another key."""
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            if difference(path):
                return None
            table = read_table(path, schema)
            found = json.loads((table.schema.metadata or {})[PROVENANCE])
            return (table, found) if any_key or found["key"] == self.key else None
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
