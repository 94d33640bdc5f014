"""The one way of writing files: whole or not at all, listed in the index of their run; and checks of digests."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.store.atomic import replace_folder, replace_whole
from oracle.store.index import announce, confirm, digest, drop_entries, json_text, make_folder, refuse_links, run_of

__all__ = [
    "DELETE",
    "damage",
    "damaged",
    "delete",
    "digest",
    "is_signed",
    "make_folder",
    "read_metadata",
    "read_table",
    "require_columns",
    "write_folder",
    "write_json",
    "write_part",
    "write_table",
    "write_text",
    "write_whole",
]

SIGNATURE = b"layer-oracle-blake2b:"
"""Marker in a table's footer, followed by the digest of the whole file computed with zeros in the digest's place."""

DIGITS = 32

DELETE = "delete the run and search again"
"""What to do about a file that nothing computes again."""


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON."""
    write_text(path, json_text(value))


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; a lone half of a surrogate pair becomes a question mark."""
    write_whole(path, lambda scratch: scratch.write_bytes(text.encode("utf-8", errors="replace")))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file that contains a digest of itself, so that any damage is detected."""

    def write(scratch: Path) -> None:
        metadata = {**(table.schema.metadata or {}), b"signature": SIGNATURE + b"0" * DIGITS}
        _parquet(scratch, table.replace_schema_metadata(metadata))
        data = bytearray(scratch.read_bytes())
        place = data.rindex(SIGNATURE) + len(SIGNATURE)
        data[place : place + DIGITS] = _signed_digest(data, place)
        scratch.write_bytes(data)

    write_whole(path, write)


def is_signed(data: bytes) -> bool | None:
    """Whether the digest in a table's bytes matches them; None if there is no digest."""
    place = data.rfind(SIGNATURE) + len(SIGNATURE)
    if place < len(SIGNATURE):
        return None
    return data[place : place + DIGITS] == _signed_digest(data, place)


def _signed_digest(data: bytes | bytearray, place: int) -> bytes:
    """Digest of a table's bytes, with zeros where it stands."""
    view = memoryview(data)
    found = hashlib.blake2b(view[:place], digest_size=DIGITS // 2)
    found.update(b"0" * DIGITS)
    found.update(view[place + DIGITS :])
    return found.hexdigest().encode()


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


def _parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def write_whole(path: Path, write: Callable[[Path], Any], name: Callable[[Path], Path] | None = None) -> Path:
    """Writes a file whole or not at all; see `oracle.store.atomic.replace_whole`.

    Inside a run no link is followed, and the run's index lists the file.

    Args:
        path: the file.
        write: writes the scratch file at the path it receives.
        name: returns the target path, if it depends on the content of the scratch file.

    Returns:
        The path of the target.

    Raises:
        InputError: if a folder between the run and the file is a link, or the path is not that of a file.
    """
    run = run_of(path)
    if run is None:
        # A link outside a run is the user's own: its file is written, and the link stays.
        return replace_whole(path.resolve() if path.is_symlink() else path, write, name)
    refuse_links(path)

    def announced(scratch: Path) -> Path:
        target = name(scratch) if name else path
        announce(target, scratch, run)
        return target

    target = replace_whole(path, write, announced)
    confirm([target], run)
    return target


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a new folder with all its files, or nothing; see `oracle.store.atomic.replace_folder`.

    Args:
        path: the folder, which must not exist yet or be empty.
        write: fills the scratch folder that it receives.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        make_folder(path.parent)
        replace_folder(path, write)
        if run := run_of(path):
            confirm([each for each in path.rglob("*") if each.is_file()], run)
    except OSError as error:
        raise InputError(f"cannot write to '{path}' ({error.strerror or error}); choose another --out") from error


def delete(path: Path) -> None:
    """Deletes a file, if it exists, and its entry in the index of its run."""
    if run := run_of(path):
        drop_entries([path], run)
    path.unlink(missing_ok=True)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A table; raises `InputError` if it is damaged, has no digest, or lacks a column of the schema."""
    try:
        data = path.read_bytes()
        # Parts have their digest in their names, and may contain text that looks like one.
        if not is_signed(data) and damage(path):
            raise damaged(path, "it has no digest, or another one than its content")
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
    return InputError(f"'{path}' is damaged ({' '.join(str(reason).split())}); {DELETE}")
