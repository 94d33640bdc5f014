"""Check that sequences have the fields a metric needs, and a hash of sequences."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from oracle.errors import InputError
from oracle.metrics import Kind, Metric
from oracle.types import Sequence

__all__ = ["check_sequences", "data_hash", "usable"]

_REFERENCE = ("a reference that is not empty", "name their column with --reference-column")

_NEEDS: dict[Kind, tuple[str, str]] = {
    "text": _REFERENCE,
    "likelihood": _REFERENCE,
    "choice": ("choices and an answer", "name their columns with --choices-column and --answer-column"),
}


def _suits(sequence: Sequence, kind: Kind) -> bool:
    if kind == "choice":
        return bool(sequence.choices) and sequence.answer is not None
    return any(reference.strip() for reference in sequence.references)


def check_sequences(sequences: Iterable[Sequence], metric: Metric, columns: str = "") -> None:
    """Checks that a metric can be computed for every sequence.

    Text and likelihood metrics need a reference that is not empty, choice metrics need choices and an answer, token
    metrics need nothing.

    Args:
        sequences: the sequences.
        metric: the metric.
        columns: names of the columns of their data, for the message.

    Raises:
        InputError: if sequences lack them; names their number, the first one, and the remedy.
    """
    if metric.kind not in _NEEDS:
        return
    sequences = list(sequences)
    lacking = [sequence for sequence in sequences if not _suits(sequence, metric.kind)]
    if not lacking:
        return
    needed, remedy = _NEEDS[metric.kind]
    available = f" (available columns: {columns})" if columns else ""
    suited = sorted({sequence.task for sequence in sequences} - {sequence.task for sequence in lacking} - {""})
    others = f", or select tasks that have them with --tasks {' '.join(suited)}" if suited else ""
    raise InputError(
        f"metric {metric.name!r} needs {needed} for every sequence, {len(lacking)} of {len(sequences)} have "
        f"none, the first with id {lacking[0].id!r}: {remedy}{available}, leave such rows "
        f"out with --skip-unusable{others}"
    )


def usable(sequences: Iterable[Sequence], metrics: Iterable[Metric], skipped: Counter[str]) -> list[Sequence]:
    """The sequences for which all metrics can be computed; the others are counted in `skipped`, by what they lack."""
    kept = []
    metrics = list(metrics)
    for sequence in sequences:
        lacking = [metric for metric in metrics if metric.kind in _NEEDS and not _suits(sequence, metric.kind)]
        if lacking:
            skipped[f"{lacking[0].name} needs {_NEEDS[lacking[0].kind][0]}"] += 1
        else:
            kept.append(sequence)
    return kept


def data_hash(sequences: Iterable[Sequence]) -> str:
    """SHA-256 (64 hexadecimal digits) over the data of the sequences in order, as canonical JSON."""
    digest = hashlib.sha256()
    for sequence in sequences:
        fields = asdict(sequence)
        del fields["rendered"]
        for name in ("messages", "record"):
            if not fields[name]:
                del fields[name]
        line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()
