"""The files of a run folder, each checked against the index before it is read."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from oracle.errors import InputError
from oracle.store.files import DELETE, damage, read_table
from oracle.store.index import INDEX, Index, accept_hint
from oracle.store.resuming import resume_command
from oracle.store.schema import INDEXED

__all__ = ["RESULTS", "SUMMARY", "RunFiles"]

SUMMARY = "summary.json"

RESULTS = ("minimal_budgets", "assignment", "verification")
"""Tables that the end of a search computes from the evaluations."""

DERIVED_BY = {"measures": "measure", "controllers": "compare", "static": "static", "drafts": "draft"}
"""Folder of tables that another command adds -> the command."""


class RunFiles:
    """Tables in the files of a run folder, whatever they mean.

    Attributes:
        folder: the run folder.
        manifest: of the run.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the search has ended and its summary is written."""
        return self._is_listed(SUMMARY)

    def has(self, name: str) -> bool:
        """Whether the run has a table of results of this name."""
        return self._is_listed(f"{name}.parquet")

    def table(self, name: str) -> pd.DataFrame:
        """A table of results, such as `minimal_budgets` or `assignment`; `table_names` lists those of the run.

        Raises:
            InputError: if the run has no such table; names the nearest, or what writes it.
        """
        return self.read(name).to_pandas()

    def read(self, name: str, schema: pa.Schema | None = None) -> pa.Table:
        """The Arrow table in the file `NAME.parquet` of the run, with its metadata, checked against the index.

        Raises:
            InputError: if it is missing, damaged or lacks a column of the schema.
        """
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"the run '{self.folder}' has no {name}{self._why_missing(name)}")
        if reason := self._difference(f"{name}.parquet"):
            raise InputError(f"'{path}' is damaged ({reason}); {self._remedy(name)}")
        try:
            return read_table(path, schema)
        except InputError as error:
            raise InputError(str(error).replace(DELETE, self._remedy(name))) from error

    def _why_missing(self, name: str) -> str:
        """What to do about a table that the run does not have: write it, or give another name."""
        folder, _, _ = name.rpartition("/")
        if folder in DERIVED_BY:
            return f": 'oracle {DERIVED_BY[folder]} {self.folder}' writes it"
        if name in ("sequences", *RESULTS):
            why = "its file is missing" if self.complete else "its search did not end"
            return f": {why}; {self._resume_hint}"
        known = self.table_names()
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        return f"{f'; nearest: {near[0]!r}' if near else ''}; its tables: {', '.join(known) or 'none yet'}"

    def table_names(self) -> list[str]:
        """Names of the tables that `table` can read, in alphabetical order."""
        within = ("", *DERIVED_BY)
        paths = (path for folder in within for path in (self.folder / folder).glob("*.parquet"))
        return sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in paths)

    def _remedy(self, name: str) -> str:
        """What computes a table again."""
        folder, _, _ = name.rpartition("/")
        if folder in DERIVED_BY:
            return f"run 'oracle {DERIVED_BY[folder]} {self.folder}' again"
        return DELETE if name == "prior" else self._resume_hint

    def parts(self, name: str, schema: pa.Schema) -> list[pa.Table]:
        """The parts of a table, in the order in which they were written.

        Raises:
            InputError: if a part is damaged.
        """
        tables = []
        for path in self._listed_parts(name):
            if reason := damage(path):
                raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}")
            tables.append(read_table(path, schema))
            if tables[-1].schema != tables[0].schema:
                raise InputError(f"'{path}' has other columns than the parts before it: it is of another run")
        return tables

    def damaged(self, name: str) -> list[tuple[Path, str]]:
        """The parts of a table that are damaged, missing or not in the index, each with the reason."""
        paths, index = self._part_paths(name), self._index()
        found = [(path, reason) for path in paths if (reason := damage(path) or _unlisted(index, self.folder, path))]
        missing = [] if index is None else [self.folder / each for each in index.missing()]
        return [*found, *((path, "it is missing") for path in missing if path.parent == self.folder / name)]

    def _part_paths(self, name: str) -> list[Path]:
        return sorted((self.folder / name).glob("part-*.parquet"))

    def _listed_parts(self, name: str) -> list[Path]:
        """The parts of a table; raises `InputError` if one is not in the index."""
        paths, index = self._part_paths(name), self._index()
        for path in paths:
            if reason := _unlisted(index, self.folder, path):
                raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}, which sets it aside")
        return paths

    def _require_all_parts(self, name: str) -> None:
        for path, reason in self.damaged(name):
            raise InputError(f"'{path}' is damaged ({reason}); {self._resume_hint}")

    def _index(self) -> Index | None:
        """The index; None for a run of an earlier version."""
        index = Index.read(self.folder)
        if index is None and self.manifest.get(INDEXED):
            raise InputError(f"'{self.folder / INDEX}' is missing; {accept_hint(self.folder)}")
        return index

    def _difference(self, name: str) -> str | None:
        """How a file differs from the index; None if it does not, or there is no index."""
        index = self._index()
        return None if index is None else index.difference(name)

    def _is_listed(self, name: str) -> bool:
        index = self._index()
        return (self.folder / name).is_file() and (index is None or name in index.files)

    @property
    def _resume_hint(self) -> str:
        return f"continue with '{resume_command(self.folder)}'"


def _unlisted(index: Index | None, folder: Path, part: Path) -> str | None:
    """Why a part is not one of the run's; its name states its digest."""
    if index is None:
        return None
    entries = index.files.get(part.relative_to(folder).as_posix(), ())
    stated = part.stem.rpartition("-")[2]
    return None if any(entry.digest == stated for entry in entries) else f"it is not listed in {INDEX}"
