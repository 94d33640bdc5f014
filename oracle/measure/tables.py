"""The tables that measuring writes into a run, each with its provenance in its metadata.

They are in `RUN/measures/`; `analysis.measurements` reads them without the model and documents their columns.
"""

from collections.abc import Mapping

import pyarrow as pa

__all__ = ["FEATURES", "FOLDER", "SIMILARITY", "TABLES", "THROUGHPUT", "VERSION"]

FOLDER = "measures"

VERSION = 1
"""Changes when the meaning of a column does; tables of another version are measured again."""

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

TABLES: Mapping[str, pa.Schema] = {"similarity": SIMILARITY, "features": FEATURES, "throughput": THROUGHPUT}
