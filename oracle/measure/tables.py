"""The tables that measuring writes into a run, each with what it came from in its metadata.

They lie in `RUN/measures/`, and are read without the model: by `analysis.measurements`.
"""

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

__all__ = ["FEATURES", "FOLDER", "SIMILARITY", "TABLES", "THROUGHPUT", "key_of", "path_of", "still_valid", "write"]

FOLDER = "measures"

VERSION = 1
"""Moves when the meaning of a column does; tables of another version are measured again."""

PROVENANCE = b"provenance"

SIMILARITY = pa.schema(
    [
        ("sequence", pa.string()),
        ("kind", pa.string()),
        ("budget", pa.int32()),
        ("token", pa.int32()),
        ("cosine", pa.float64()),
        ("relative_error", pa.float64()),
        ("same_token", pa.bool_()),
    ]
)
"""`kind`: `skip` (unified skipping) or `exit` (the first layers); `budget`: units that ran; `token`: which token of the
full model's output the state predicts, from 0; `same_token`: whether it predicts what the full model does."""

FEATURES = pa.schema(
    [
        ("sequence", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("log_likelihood", pa.float64()),
        ("entropy", pa.float64()),
        ("first_entropy", pa.float64()),
        ("first_gap", pa.float64()),
        ("prompt_state", pa.list_(pa.float32())),
    ]
)
"""Of the full model on its own output: `log_likelihood` (nats/token) and `entropy` (nats), means over its tokens;
`first_entropy` and `first_gap` (difference of the two highest probabilities) at the first one; `prompt_state`: the
hidden state after the middle unit, mean over the prompt's tokens (D)."""

THROUGHPUT = pa.schema(
    [
        ("policy", pa.string()),
        ("speedup", pa.int32()),
        ("batch", pa.int32()),
        ("cost", pa.float64()),
        ("fraction", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("quality", pa.float64()),
        ("sequences", pa.int32()),
    ]
)
"""`policy`: `full` or `unified`; `speedup`: the nominal one; `cost` and `fraction`: as in the run; `quality`: mean of
the run's criterion over so many `sequences`, which does not depend on the batch."""

TABLES: Mapping[str, pa.Schema] = {"similarity": SIMILARITY, "features": FEATURES, "throughput": THROUGHPUT}


def path_of(folder: Path, name: str) -> Path:
    """Where a table of a run lies."""
    return folder / FOLDER / f"{name}.parquet"


def key_of(run: Run, sequences: list[str], sizes: Mapping[str, Any]) -> str:
    """Digest of all that a table depends on but the machine."""
    manifest = run.manifest
    parts = [VERSION, manifest["model"], manifest["config"], manifest.get("data"), sequences, dict(sizes)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def still_valid(folder: Path, name: str, key: str) -> bool:
    """Whether a table is there, whole, and measured of the same things in the same sizes."""
    path = path_of(folder, name)
    if not path.is_file():
        return False
    try:
        metadata = read_table(path, TABLES[name]).schema.metadata or {}
        return bool(json.loads(metadata[PROVENANCE])["key"] == key)
    except (InputError, ValueError, KeyError, TypeError):
        return False


def write(run: Run, name: str, table: pa.Table, about: Mapping[str, Any]) -> Path:
    """Writes a table whole or not at all.

    Args:
        run: where to.
        name: of the table.
        table: what was measured.
        about: the key, the sizes, the machine.

    Raises:
        InputError: if it cannot be written.
    """
    manifest = run.manifest
    origin: dict[str, Any] = {key: manifest[key] for key in ("model", "data", "config", "seed") if key in manifest}
    provenance = {**origin, **about, "versions": versions(), "commit": git_commit()}
    path = path_of(run.folder, name)
    try:
        path.parent.mkdir(exist_ok=True)
        write_table(path, table.replace_schema_metadata({PROVENANCE: json.dumps(provenance).encode()}))
    except OSError as error:
        raise InputError(f"cannot write '{path}' ({error.strerror}); make room or make it writable") from error
    return path
