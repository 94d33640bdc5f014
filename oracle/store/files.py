"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["write_json", "write_table"]


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, readable by people."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name may hold half a surrogate pair: its escape is JSON's own.
    _whole(path, lambda scratch: scratch.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file whose pages carry checksums, so that damage is noticed."""
    _whole(path, lambda scratch: pq.write_table(table, scratch, compression="zstd", write_page_checksum=True))


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside the target, forces it to disk, then renames: readers see the old file or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(scratch)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
