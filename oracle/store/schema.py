"""Schemas of the tables of a run folder, and conversions between rows and values."""

from collections.abc import Hashable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import pandas as pd
import pyarrow as pa

from oracle.types import Outcome, Sequence

__all__ = [
    "CERTIFICATE",
    "EVALUATION",
    "INDEXED",
    "SCHEMA_VERSION",
    "SEQUENCES",
    "evaluations_table",
    "outcomes_of",
    "sequence_of",
    "sequences_table",
]

SCHEMA_VERSION = 3
"""Changes when the meaning of a column or of a manifest entry changes."""

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
"""Columns of every evaluation, followed by one column per quality."""

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


def sequences_table(sequences: Seq[Sequence], prompt_tokens: Seq[int]) -> pa.Table:
    """One row per sequence, with the length of its prompt in tokens."""
    rows = [
        {**vars(sequence), "sequence": sequence.id, "prompt_tokens": count}
        for sequence, count in zip(sequences, prompt_tokens, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SEQUENCES)


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
    )
