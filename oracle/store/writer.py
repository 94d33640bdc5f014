"""Writing a run folder."""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from oracle.errors import InputError
from oracle.store.atomic import is_scratch
from oracle.store.files import delete, make_folder, write_json, write_part, write_table, write_text
from oracle.store.index import GUARD, INDEX, MANIFEST, begin_index, drop_entries, index_all, json_text, refuse_links
from oracle.store.lock import Lock
from oracle.store.log import Log
from oracle.store.resuming import resume_command
from oracle.store.run import CERTIFICATES, EVALUATIONS, RESULTS, SUMMARY, Run
from oracle.store.schema import CERTIFICATE, INDEXED, SCHEMA_VERSION, evaluations_table, sequences_table
from oracle.types import Outcome, Sequence

__all__ = ["RunWriter", "check_free"]

PARTS = (EVALUATIONS, CERTIFICATES)
"""Tables written in parts during the search."""

PART_NUMBER = re.compile(r"part-(\d{1,9})-")

LEFT_OVER = ("lock", "log.jsonl", INDEX, GUARD)
"""Files that a run has before its manifest."""


class RunWriter:
    """Writer of a run folder. Holds the folder's lock, so no other process can write until it is closed.

    Args:
        folder: must not exist yet, or be empty.
        manifest: all entries but the schema version.

    Attributes:
        log: log of the run.

    Raises:
        InputError: if the folder is not empty; it is left unchanged.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        check_free(folder)
        try:
            make_folder(folder)
            self._open(folder)
            check_free(folder)  # another process may have held the lock until now
            text = json_text({"schema_version": SCHEMA_VERSION, INDEXED: True, **manifest})
            begin_index(folder, text)
            write_text(folder / MANIFEST, text)
        except OSError as error:
            raise InputError(f"cannot write to '{folder}' ({error.strerror}); choose another --out") from error

    @classmethod
    def reopen(cls, folder: Path) -> "RunWriter":
        """Reopens an interrupted run. Parts that are damaged or not in the index are set aside and recorded in the log.

        Raises:
            InputError: if it is not a run, has another schema version, or another process is writing it.
        """
        run = Run.open(folder)
        writer = cls.__new__(cls)
        writer._open(folder)
        for name in PARTS:
            for part, reason in run.damaged(name):
                drop_entries([part], folder)
                if part.exists():
                    part.rename(part.with_suffix(".damaged"))
                writer.log.warning("set aside", file=f"{name}/{part.name}", reason=reason)
        return writer

    def _open(self, folder: Path) -> None:
        self.folder = folder
        for name in (*PARTS, "lock", "log.jsonl"):
            refuse_links(folder / name / MANIFEST)
        self._lock = Lock(folder / "lock")
        self.log = Log(folder / "log.jsonl")
        for name in PARTS:
            try:
                (folder / name).mkdir(exist_ok=True)
            except FileExistsError:
                raise InputError(
                    f"'{folder / name}' must be a folder, but is a file; move the file away, or start a new run"
                ) from None
            for scratch in (folder / name).glob(".*.tmp"):
                scratch.unlink()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def begin_again(self) -> None:
        """Deletes the results, so that the run does not look complete until they are computed again."""
        for name in (SUMMARY, *(f"{each}.parquet" for each in RESULTS)):
            delete(self.folder / name)

    def write_sequences(
        self, sequences: Seq[Sequence], prompt_tokens: Seq[int], scored: Seq[Mapping[str, int]] | None = None
    ) -> None:
        """Writes the table of sequences, with lengths in tokens: of their prompts, and of what likelihoods score."""
        with self._writing():
            write_table(self.folder / "sequences.parquet", sequences_table(sequences, prompt_tokens, scored))

    def append(self, rows: Seq[tuple[str, int, Outcome]], qualities: Seq[str]) -> None:
        """Writes one part of evaluations, one row per (sequence id, number within the sequence, outcome)."""
        self._part(EVALUATIONS, evaluations_table(rows, qualities))

    def certify(self, rows: Seq[dict[str, Any]]) -> None:
        """Writes certificates, one row per sequence whose evaluations are written; columns of `CERTIFICATE`."""
        self._part(CERTIFICATES, pa.Table.from_pylist(list(rows), schema=CERTIFICATE))

    def _part(self, name: str, table: pa.Table) -> None:
        folder = self.folder / name
        numbers = (PART_NUMBER.match(path.name) for path in folder.iterdir())
        number = max((int(found[1]) for found in numbers if found), default=-1) + 1
        with self._writing():
            path = write_part(folder / f"part-{number:05d}", table)
        self.log.info("wrote", file=f"{name}/{path.name}", rows=len(table))

    def write_result(self, name: str, table: pd.DataFrame) -> None:
        """Writes a table of results."""
        with self._writing():
            write_table(self.folder / f"{name}.parquet", pa.Table.from_pandas(table, preserve_index=False))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the summary, which completes the run."""
        with self._writing():
            write_json(self.folder / SUMMARY, summary)
            if not (self.folder / INDEX).exists():  # begun by an earlier version
                index_all(self.folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write to '{self.folder}' ({error.strerror}); results so far are stored: fix the cause, then "
                f"continue with '{resume_command(self.folder)}'"
            ) from error


def check_free(folder: Path) -> None:
    """Checks that a run can be written to a folder.

    What a killed process leaves before it has written anything of worth does not count.

    Raises:
        InputError: if it is not empty, or the path is invalid.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(not _is_left_over(path) for path in folder.iterdir()))
    except OSError as error:
        raise InputError(f"cannot write to '{folder}' ({error.strerror}); choose another --out") from error
    if taken:
        resumed = f"continue the unfinished run with --resume {folder}, " if _is_unfinished(folder) else ""
        raise InputError(f"'{folder}' already exists; {resumed}choose another --out or delete it")


def _is_unfinished(folder: Path) -> bool:
    try:
        return not Run.open(folder).complete
    except InputError:
        return False


def _is_left_over(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return path.name in PARTS and not any(path.iterdir())
    return path.name in LEFT_OVER or is_scratch(path)
