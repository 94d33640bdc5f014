"""Verification: reads reported outputs by the library's own forward of the cut model, and explains differences."""

import math
import traceback
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

import analysis
from oracle.engine import Difference, Engine
from oracle.errors import FOREIGN, reason_of
from oracle.executors import Pool, Searcher
from oracle.store.log import Log
from oracle.store.schema import sequence_of
from oracle.types import Allocation, Sequence
from oracle.utils.progress import Advance, Watch

__all__ = ["explain", "rerun", "verify"]

MAX_ROUNDING = 100
"""Leads above this multiple of the near-tie threshold are not attributed to rounding."""

Confirm = Callable[[Allocation, Seq[int]], bool]
"""Whether plain generation of an allocation yields recorded tokens."""


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """Recorded outputs of one sequence.

    Attributes:
        sequence: the sequence.
        rows: their rows in the table of all recorded evaluations.
        outputs: allocation and token ids of each.
    """

    sequence: Sequence
    rows: list[int]
    outputs: list[tuple[Allocation, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Whether one output is that of plain generation; if that failed, the reason and its traceback."""

    agrees: bool
    error: str | None = None
    trace: tuple[str, ...] = ()


def verify(
    pool: Pool, experiment: analysis.Experiment, summary: analysis.Summary, log: Log, watch: Watch
) -> pd.DataFrame:
    """Verifies every reported allocation alone, by the library's own forward of the cut model, on all workers.

    Reported per sequence: the full model (the threshold), the minimal allocation and the oracle's choice. See
    `Engine.confirms`.

    Returns:
        One row per allocation: `sequence`, `number`, `allocation`, `cost`, `agrees`, and `error`: type and message of
        the exception that the library raised, or None.
    """
    evaluations = experiment.evaluations
    reported = pd.concat(
        [
            summary.minimal[["sequence", "number"]],
            summary.assignment[["sequence", "number"]],
            evaluations.loc[evaluations["number"] == 0, ["sequence", "number"]],
        ]
    ).drop_duplicates()
    recorded = reported.merge(evaluations, on=["sequence", "number"], validate="one_to_one")
    claims = list(_claims(experiment, recorded))
    # The longest first, so that no worker begins one when the others have ended.
    claims.sort(key=lambda claim: -sum(len(tokens) for _, tokens in claim.outputs))
    with watch("Verifying", len(recorded)) as advance:
        return _checked(claims, pool.map(_confirm, claims), recorded, log, advance)


def rerun(engine: Engine, experiment: analysis.Experiment, recorded: pd.DataFrame, advance: Advance) -> pd.DataFrame:
    """Runs recorded evaluations again, alone, by plain generation on the cut model; columns as in `verify`."""
    claims = list(_claims(experiment, recorded))
    results = ((place, _check(partial(_generates, engine), claim)) for place, claim in enumerate(claims))
    return _checked(claims, results, recorded, None, advance)


def _checked(
    claims: Seq[_Claim],
    results: Iterable[tuple[int, list[_Checked]]],
    recorded: pd.DataFrame,
    log: Log | None,
    advance: Advance,
) -> pd.DataFrame:
    """Recorded evaluations in their order, with what was found; tracebacks are logged."""
    found: dict[int, _Checked] = {}
    for place, checked in results:
        claim = claims[place]
        for row, one in zip(claim.rows, checked, strict=True):
            found[row] = one
            if one.error is not None and log is not None:
                about = {"sequence": claim.sequence.id, "number": int(recorded["number"].iloc[row])}
                log.warning("verification failed", **about, error=one.error, traceback=list(one.trace))
        advance(len(checked), claim.sequence.id)
    ordered = [found[row] for row in range(len(recorded))]
    return recorded[["sequence", "number", "allocation", "cost"]].assign(
        agrees=[one.agrees for one in ordered], error=pd.array([one.error for one in ordered], dtype="string")
    )


def _claims(experiment: analysis.Experiment, recorded: pd.DataFrame) -> Iterator[_Claim]:
    sequences = _sequences(experiment)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(recorded["sequence"]):
        rows_of.setdefault(name, []).append(row)
    for name, rows in rows_of.items():
        group = recorded.iloc[rows]
        outputs = [
            (tuple(allocation.tolist()), tuple(tokens.tolist()))
            for allocation, tokens in zip(group["allocation"], group["tokens"], strict=True)
        ]
        yield _Claim(sequence=sequences[name], rows=rows, outputs=outputs)


def _confirm(searcher: Searcher, claim: _Claim) -> list[_Checked]:
    return _check(searcher.engine.confirming, claim)


def _generates(engine: Engine, sequence: Sequence) -> Confirm:
    prompt = engine.open(sequence)
    return lambda allocation, tokens: engine.alone(prompt, allocation) == tuple(tokens)


def _check(confirming: Callable[[Sequence], Confirm], claim: _Claim) -> list[_Checked]:
    """Every output of a claim. A search whose last step fails keeps its results, marked as not verified."""
    try:
        confirm = confirming(claim.sequence)
    except FOREIGN as error:
        return [_failed(error)] * len(claim.outputs)
    results = []
    for allocation, tokens in claim.outputs:
        try:
            results.append(_Checked(agrees=confirm(allocation, tokens)))
        except FOREIGN as error:
            results.append(_failed(error))
    return results


def _failed(error: BaseException) -> _Checked:
    return _Checked(agrees=False, error=reason_of(error), trace=tuple(traceback.format_exception(error)))


def explain(
    engine: Engine, experiment: analysis.Experiment, verification: pd.DataFrame, log: Log | None = None
) -> list[dict[str, Any]]:
    """Per allocation that failed verification: the token, the margin, the rounding threshold and a remedy."""
    failed = verification.loc[~verification["agrees"], ["sequence", "number", "error"]]
    recorded = failed.merge(experiment.evaluations, on=["sequence", "number"], validate="one_to_one")
    sequences = _sequences(experiment)
    entries = []
    for row in recorded.to_dict("records"):
        about = {"sequence": row["sequence"], "number": int(row["number"]), "cost": float(row["cost"])}
        if not pd.isna(row["error"]):
            entries.append({**about, "error": row["error"], "remedy": f"plain generation failed ({row['error']})"})
            continue
        try:
            prompt = engine.open(sequences[row["sequence"]])
            found = engine.difference(prompt, tuple(row["allocation"].tolist()), row["tokens"].tolist())
        except FOREIGN as error:
            reason = reason_of(error)
            if log is not None:
                log.warning("verification failed", **about, error=reason, traceback=traceback.format_exception(error))
            entries.append(
                {**about, "error": reason, "remedy": f"comparing it with plain generation failed ({reason})"}
            )
            continue
        tokens = {"recorded": found.recorded, "plain": found.plain} if found else {}
        texts = {f"{name}_text": None if one is None else engine.model.text([one]) for name, one in tokens.items()}
        entries.append(
            {
                **about,
                **(asdict(found) if found else {}),
                **texts,
                "near_tie": engine.rounding()["near_tie"],
                "rounding": engine.rounding()["logits"],
                "remedy": _remedy(engine, found),
            }
        )
    return entries


def _sequences(experiment: analysis.Experiment) -> dict[str, Sequence]:
    return {row["sequence"]: sequence_of(row) for row in experiment.sequences.to_dict("records")}


def _remedy(engine: Engine, found: Difference | None) -> str:
    """What the user can do about an allocation that failed verification."""
    if found is None:
        return (
            "a second plain generation agrees with the recorded output, so this machine does not reproduce its own "
            "results: search again with OMP_NUM_THREADS=1"
        )
    if found.lead is not None and found.lead <= MAX_ROUNDING * engine.tie < math.inf:
        return f"rounding reversed the lead: search again with --near-tie {max(4 * found.lead, 2 * engine.tie):.2g}"
    return (
        "rounding does not explain this: the stored output or the engine is wrong for this model; do not use this "
        "allocation, and report the run"
    )
