"""Reading what may be damaged: whatever is wrong with a file is an `InputError` that names it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.store.files import digest, is_signed

__all__ = ["damage", "damaged", "read_metadata", "read_table", "require_columns"]


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
