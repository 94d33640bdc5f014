"""Schemas of the tables of a run folder, and conversions between rows and values."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import pandas as pd
import pyarrow as pa

from oracle.types import Message, Outcome, Rendered, Sequence

__all__ = [
    "CERTIFICATE",
    "EVALUATION",
    "INDEXED",
    "READABLE",
    "SCHEMA_VERSION",
    "SEQUENCES",
    "evaluations_table",
    "outcomes_of",
    "prompts_hash",
    "sequence_of",
    "sequences_table",
    "with_prompts",
]

SCHEMA_VERSION = 4
"""Changes when the meaning of a column or of a manifest entry changes.

4: the sequences carry their prompts as the model reads them (`RENDERED`), which version 3 rendered anew on each use.
"""

READABLE = (3, SCHEMA_VERSION)
"""Versions that can be read."""

INDEXED = "indexed"
"""Entry of a manifest: the run has an index of its files. Runs of earlier versions have none."""

SEQUENCES = pa.schema(
    [
        ("sequence", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.string()),
        ("references", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.int32()),
        ("prompt_tokens", pa.int32()),
    ]
)

MESSAGES = pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
"""Further column of the sequences, of runs in which a prompt is a conversation; empty where it is not."""
RECORD = pa.field("record", pa.string())
"""Further column of the sequences, of runs with a metric that asks for it: see `Sequence.record`."""
RENDERED = pa.schema([("rendered", pa.string()), ("prompt_ids", pa.list_(pa.int32()))])
"""Further columns of the sequences: the prompt as the model reads it, as text and as token ids; null in version 3."""

SCORED = pa.schema([("choice_tokens", pa.int32()), ("reference_tokens", pa.int32())])
"""Further columns of the sequences: tokens of the longest choice and reference, where a metric scores them by
likelihood; null elsewhere and in earlier runs."""

EVALUATION = pa.schema(
    [
        ("sequence", pa.string()),
        ("number", pa.int32()),
        ("family", pa.string()),
        ("allocation", pa.list_(pa.int16())),
        ("cost", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finished", pa.bool_()),
        ("margin", pa.float64()),
        ("rerun", pa.bool_()),
        ("dropped", pa.bool_()),
    ]
)
"""Columns of every evaluation, followed by one column per quality. `cost` is the number of units, whatever the search
minimised: `Run` replaces it by the run's cost."""

CERTIFICATE = pa.schema(
    [
        ("sequence", pa.string()),
        ("evaluations", pa.int32()),
        ("exhausted", pa.int32()),
        ("executions", pa.int64()),
        ("set_aside", pa.string()),
    ]
)
"""End of a sequence's search: number of evaluations, least number of units of which not every mask was tested, layer x
token units spent, and the reason if it was set aside."""


def sequences_table(
    sequences: Seq[Sequence], prompt_tokens: Seq[int], scored: Seq[Mapping[str, int]] | None = None
) -> pa.Table:
    """One row per sequence, with its prompt as the model reads it, the length of that in tokens, and `SCORED`."""
    rows = [
        {
            **vars(sequence),
            "sequence": sequence.id,
            "prompt_tokens": count,
            "rendered": sequence.rendered.text if sequence.rendered else None,
            "prompt_ids": list(sequence.rendered.ids) if sequence.rendered else None,
        }
        for sequence, count in zip(sequences, prompt_tokens, strict=True)
    ]
    for row, counts in zip(rows, scored or [], strict=scored is not None):
        row |= counts
    schema = pa.unify_schemas([SEQUENCES, RENDERED, SCORED])
    if any(sequence.messages for sequence in sequences):
        schema = schema.append(MESSAGES)
        for row, sequence in zip(rows, sequences, strict=True):
            row["messages"] = [vars(turn) for turn in sequence.messages]
    if any(sequence.record for sequence in sequences):
        schema = schema.append(RECORD)
    return pa.Table.from_pylist(rows, schema=schema)


def with_prompts(sequences: pa.Table) -> pa.Table:
    """The table of sequences with the columns of `RENDERED` and `SCORED`, null if the run lacks them."""
    for field in (*RENDERED, *SCORED):
        if field.name not in sequences.column_names:
            sequences = sequences.append_column(field, pa.nulls(len(sequences), field.type))
    return sequences


def prompts_hash(sequences: Seq[Sequence]) -> str:
    """Digest of the prompts' token ids, in order: 16 hexadecimal digits of SHA-256."""
    ids = [list(sequence.rendered.ids) if sequence.rendered else None for sequence in sequences]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]


def evaluations_table(rows: Seq[tuple[str, int, Outcome]], qualities: Seq[str]) -> pa.Table:
    """One row per evaluation (sequence id, number within the sequence, outcome), with one column per quality."""
    schema = pa.schema([*EVALUATION, *((name, pa.float64()) for name in qualities)])
    values = [
        {**vars(outcome), "sequence": sequence, "number": number, "cost": outcome.cost, **outcome.quality}
        for sequence, number, outcome in rows
    ]
    return pa.Table.from_pylist(values, schema=schema)


def outcomes_of(evaluations: pd.DataFrame) -> list[tuple[int, Outcome]]:
    """The numbered outcomes stored in rows of evaluations."""
    qualities = [name for name in evaluations.columns if name not in EVALUATION.names]
    return [
        (
            int(row["number"]),
            Outcome(
                allocation=tuple(row["allocation"].tolist()),
                family=row["family"],
                tokens=tuple(row["tokens"].tolist()),
                text=row["text"],
                finished=bool(row["finished"]),
                margin=float(row["margin"]),
                rerun=bool(row["rerun"]),
                dropped=bool(row["dropped"]),
                quality={name: float(row[name]) for name in qualities if pd.notna(row[name])},
            ),
        )
        for row in evaluations.to_dict("records")
    ]


def sequence_of(row: Mapping[Hashable, Any]) -> Sequence:
    """The sequence in a row of `SEQUENCES`, read as a dict."""
    return Sequence(
        id=row["sequence"],
        prompt=row["prompt"],
        references=tuple(row["references"]),
        choices=tuple(row["choices"]),
        answer=None if pd.isna(row["answer"]) else int(row["answer"]),
        task=row["task"],
        messages=tuple(Message(**turn) for turn in row.get("messages", ())),
        rendered=_rendered(row),
        record=row.get("record") or "",
    )


def _rendered(row: Mapping[Hashable, Any]) -> Rendered | None:
    ids = row.get("prompt_ids")
    return None if ids is None else Rendered(text=row["rendered"], ids=tuple(int(token) for token in ids))
