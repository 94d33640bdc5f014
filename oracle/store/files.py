"""Files that are there whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError

__all__ = [
    "damage",
    "damaged",
    "digest",
    "is_signed",
    "read_metadata",
    "read_table",
    "require_columns",
    "write_json",
    "write_part",
    "write_table",
    "write_whole",
]

SIGNATURE = b"layer-oracle-blake2b:"
"""What stands in a table's footer before the digest of the whole file, itself taken as zeros."""

DIGITS = 32


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, readable by people."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name may hold half a surrogate pair: its escape is JSON's own.
    write_whole(path, lambda scratch: scratch.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file that holds a digest of all of itself, so that any damage is noticed."""

    def write(scratch: Path) -> None:
        metadata = {**(table.schema.metadata or {}), b"signature": SIGNATURE + b"0" * DIGITS}
        _parquet(scratch, table.replace_schema_metadata(metadata))
        data = scratch.read_bytes()
        place = data.rindex(SIGNATURE) + len(SIGNATURE)
        scratch.write_bytes(data[:place] + _hash(data).encode() + data[place + DIGITS :])

    write_whole(path, write)


def is_signed(data: bytes) -> bool | None:
    """Whether the digest that a table holds is that of its bytes; None if it holds none."""
    place = data.rfind(SIGNATURE) + len(SIGNATURE)
    if place < len(SIGNATURE):
        return None
    found = data[place : place + DIGITS]
    return found == _hash(data[:place] + b"0" * DIGITS + data[place + DIGITS :]).encode()


def write_part(stem: Path, table: pa.Table) -> Path:
    """Writes a Parquet file whose name ends with the digest of its content, so that any damage is noticed.

    Args:
        stem: path of the file without digest and suffix.
        table: what it holds.

    Returns:
        Path of the file.
    """

    def name(scratch: Path) -> Path:
        return stem.with_name(f"{stem.name}-{digest(scratch)}.parquet")

    return write_whole(stem, lambda scratch: _parquet(scratch, table), name)


def digest(path: Path) -> str:
    """Short digest of a file's content: 16 hexadecimal digits of BLAKE2b."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGITS // 2).hexdigest()


def _parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def write_whole(path: Path, write: Callable[[Path], Any], name: Callable[[Path], Path] | None = None) -> Path:
    """Writes beside the target, forces it to disk, then renames: readers see the old file or the new one.

    Args:
        path: the file.
        write: writes the scratch file it is given.
        name: gives the target where that depends on what was written.

    Returns:
        The path of the target.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(scratch)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        target = name(scratch) if name else path
        scratch.replace(target)
        _sync_folder(target.parent)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def _sync_folder(folder: Path) -> None:
    """Forces a renaming to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A table, if it is whole and has the columns it must have."""
    try:
        data = path.read_bytes()
        # Tables of earlier versions hold no digest; parts have theirs in their names, and texts that may look like one.
        if is_signed(data) is False and damage(path):
            raise damaged(path, "it does not have the digest that it holds")
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        require_columns(path, table.schema, schema or pa.schema([]))
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    return table


def read_metadata(path: Path) -> pq.FileMetaData:
    """What a Parquet file says of itself."""
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def require_columns(path: Path, found: pa.Schema, needed: pa.Schema) -> None:
    """Refuses a file that lacks columns, or has them of other types."""
    for field in needed:
        if field.name not in found.names or found.field(field.name).type != field.type:
            raise damaged(path, f"no column {field.name}")


def damage(part: Path) -> str | None:
    """Why a part is not what was written: its name ends with the digest of its content."""
    try:
        found = digest(part)
    except OSError as error:
        return error.strerror or "it cannot be read"
    return None if part.stem.endswith(f"-{found}") else f"its digest is {found}"


def damaged(path: Path, reason: object) -> InputError:
    """The error that says so."""
    return InputError(f"'{path}' is damaged ({' '.join(str(reason).split())}); delete the run and search again")
