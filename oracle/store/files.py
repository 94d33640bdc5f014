"""Atomic writes of files, and checks of their digests."""

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
"""Marker in a table's footer, followed by the digest of the whole file computed with zeros in the digest's place."""

DIGITS = 32


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name may hold half a surrogate pair; backslashreplace writes it as JSON's own escape.
    write_whole(path, lambda scratch: scratch.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file that contains a digest of itself, so that any damage is detected."""

    def write(scratch: Path) -> None:
        metadata = {**(table.schema.metadata or {}), b"signature": SIGNATURE + b"0" * DIGITS}
        _parquet(scratch, table.replace_schema_metadata(metadata))
        data = scratch.read_bytes()
        place = data.rindex(SIGNATURE) + len(SIGNATURE)
        scratch.write_bytes(data[:place] + _hash(data).encode() + data[place + DIGITS :])

    write_whole(path, write)


def is_signed(data: bytes) -> bool | None:
    """Whether the digest in a table's bytes matches them; None if there is no digest."""
    place = data.rfind(SIGNATURE) + len(SIGNATURE)
    if place < len(SIGNATURE):
        return None
    found = data[place : place + DIGITS]
    return found == _hash(data[:place] + b"0" * DIGITS + data[place + DIGITS :]).encode()


def write_part(stem: Path, table: pa.Table) -> Path:
    """Writes a Parquet file whose name ends with the digest of its content, so that any damage is detected.

    Args:
        stem: path of the file without digest and suffix.
        table: its content.

    Returns:
        Path of the file.
    """

    def name(scratch: Path) -> Path:
        return stem.with_name(f"{stem.name}-{digest(scratch)}.parquet")

    return write_whole(stem, lambda scratch: _parquet(scratch, table), name)


def digest(path: Path) -> str:
    """Digest of a file's content: 16 hexadecimal digits of BLAKE2b."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGITS // 2).hexdigest()


def _parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def write_whole(path: Path, write: Callable[[Path], Any], name: Callable[[Path], Path] | None = None) -> Path:
    """Writes a scratch file, syncs it to disk and renames it, so that readers see the old file or the new one.

    Args:
        path: the file.
        write: writes the scratch file at the path it receives.
        name: returns the target path, if it depends on the content of the scratch file.

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
    """Syncs a rename to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A table; raises `InputError` if it is damaged or lacks a column of the schema."""
    try:
        data = path.read_bytes()
        # Tables of earlier versions contain no digest; parts have it in their names, and may contain similar text.
        if is_signed(data) is False and damage(path):
            raise damaged(path, "its content does not match its digest")
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        require_columns(path, table.schema, schema or pa.schema([]))
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    return table


def read_metadata(path: Path) -> pq.FileMetaData:
    """Metadata of a Parquet file."""
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def require_columns(path: Path, found: pa.Schema, needed: pa.Schema) -> None:
    """Raises `InputError` if a file lacks columns, or has them with other types."""
    for field in needed:
        if field.name not in found.names or found.field(field.name).type != field.type:
            raise damaged(path, f"no column {field.name}")


def damage(part: Path) -> str | None:
    """Why a part is damaged; None if its content matches the digest at the end of its name."""
    try:
        found = digest(part)
    except OSError as error:
        return error.strerror or "it cannot be read"
    return None if part.stem.endswith(f"-{found}") else f"its digest is {found}"


def damaged(path: Path, reason: object) -> InputError:
    """The error for a damaged file."""
    return InputError(f"'{path}' is damaged ({' '.join(str(reason).split())}); delete the run and search again")
