"""The tables that measuring writes into a run, each with what it came from in its metadata.

They lie in `RUN/measures/`, and are read without the model: by `analysis.measurements`.
"""

from collections.abc import Mapping

import pyarrow as pa

__all__ = ["FEATURES", "FOLDER", "SIMILARITY", "TABLES", "THROUGHPUT", "VERSION"]

FOLDER = "measures"

VERSION = 1
"""Moves when the meaning of a column does; tables of another version are measured again."""

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
"""`policy`: `full`, `early-exit`, `skipdecode` or `unified`, all zero-shot; `speedup`: the nominal one; `cost` and
`fraction`: as in the run, for `skipdecode` the mean over the tokens of a full-length output; `quality`: mean of the
run's criterion over so many `sequences`, which does not depend on the batch."""

TABLES: Mapping[str, pa.Schema] = {"similarity": SIMILARITY, "features": FEATURES, "throughput": THROUGHPUT}
