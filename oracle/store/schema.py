"""The tables of a run folder, and what an outcome looks like as a row."""

from collections.abc import Hashable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import pandas as pd
import pyarrow as pa

from oracle.types import Outcome, Sequence

__all__ = [
    "CERTIFICATE",
    "EVALUATION",
    "SCHEMA_VERSION",
    "SEQUENCES",
    "certificates_table",
    "evaluations_table",
    "outcomes_of",
    "sequence_of",
    "sequences_table",
]

SCHEMA_VERSION = 3
"""Moves when the meaning of a column or of a manifest entry does."""

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
"""The columns of every evaluation; a column per quality follows them."""

CERTIFICATE = pa.schema(
    [
        ("sequence", pa.string()),
        ("evaluations", pa.int32()),
        ("exhausted", pa.int32()),
        ("executions", pa.int64()),
        ("set_aside", pa.string()),
    ]
)
"""How the search of a sequence ended: its evaluations, the least number of units of which not every mask was tested,
the layer x token units spent, and why it was given up if it was."""


def sequences_table(sequences: Seq[Sequence], prompt_tokens: Seq[int]) -> pa.Table:
    """One row a sequence, with the length of its prompt in tokens."""
    rows = [
        {
            "sequence": sequence.id,
            "task": sequence.task,
            "prompt": sequence.prompt,
            "references": list(sequence.references),
            "choices": list(sequence.choices),
            "answer": sequence.answer,
            "prompt_tokens": count,
        }
        for sequence, count in zip(sequences, prompt_tokens, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SEQUENCES)


def evaluations_table(rows: Seq[tuple[str, int, Outcome]], qualities: Seq[str]) -> pa.Table:
    """One row an evaluation: (sequence id, number within the sequence, outcome), a column per quality."""
    schema = pa.schema([*EVALUATION, *((name, pa.float64()) for name in qualities)])
    return pa.Table.from_pylist([_row(*row) for row in rows], schema=schema)


def _row(sequence: str, number: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "number": number,
        "family": outcome.family,
        "allocation": list(outcome.allocation),
        "cost": outcome.cost,
        "tokens": list(outcome.tokens),
        "text": outcome.text,
        "finished": outcome.finished,
        "margin": outcome.margin,
        "rerun": outcome.rerun,
        "dropped": outcome.dropped,
        **outcome.quality,
    }


def certificates_table(rows: Seq[dict[str, Any]]) -> pa.Table:
    """One row a sequence whose search has ended."""
    return pa.Table.from_pylist(list(rows), schema=CERTIFICATE)


def outcomes_of(evaluations: pd.DataFrame) -> list[tuple[int, Outcome]]:
    """The outcomes that rows were made of, with their numbers."""
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
