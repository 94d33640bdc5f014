"""Verification: runs reported allocations again by plain generation on the cut model, and explains differences."""

import math
import traceback
from dataclasses import asdict
from typing import Any

import pandas as pd

import analysis
from oracle.engine import Difference, Engine
from oracle.errors import FOREIGN, reason_of
from oracle.store.log import Log
from oracle.store.schema import sequence_of
from oracle.types import Sequence
from oracle.utils.progress import Advance, Watch

__all__ = ["explain", "rerun", "verify"]

MAX_ROUNDING = 100
"""Leads above this multiple of the near-tie threshold are not attributed to rounding."""


def verify(
    engine: Engine, experiment: analysis.Experiment, summary: analysis.Summary, log: Log, watch: Watch
) -> pd.DataFrame:
    """Runs every reported allocation again, alone, by plain generation on the cut model.

    Reported per sequence: the full model (the threshold), the minimal allocation and the oracle's choice.

    Returns:
        One row per allocation: `sequence`, `number`, `allocation`, `cost`, `agrees`, and `error`: type and message of
        the exception that plain generation raised, or None.
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
    with watch("Verifying", len(recorded)) as advance:
        return rerun(engine, experiment, recorded, log, advance)


def rerun(
    engine: Engine, experiment: analysis.Experiment, recorded: pd.DataFrame, log: Log | None, advance: Advance
) -> pd.DataFrame:
    """Runs recorded evaluations again, alone, by plain generation on the cut model; columns as in `verify`."""
    sequences = _sequences(experiment)
    agrees: list[bool] = []
    errors: list[str | None] = []
    for name, group in recorded.groupby("sequence", sort=False):
        for number, allocation, tokens in zip(group["number"], group["allocation"], group["tokens"], strict=True):
            # A search whose last step fails keeps its results, marked as not verified.
            try:
                prompt = engine.open(sequences[str(name)])
                agrees.append(engine.alone(prompt, tuple(allocation.tolist())) == tuple(tokens.tolist()))
                errors.append(None)
            except FOREIGN as error:
                agrees.append(False)
                errors.append(_failed(log, str(name), int(number), error))
            advance(1, str(name))
    ordered = pd.concat([group for _, group in recorded.groupby("sequence", sort=False)])
    return ordered[["sequence", "number", "allocation", "cost"]].assign(
        agrees=agrees, error=pd.array(errors, dtype="string")
    )


def _failed(log: Log | None, sequence: str, number: int, error: BaseException) -> str:
    """The reason of an exception, whose traceback is logged."""
    if log is not None:
        lines = traceback.format_exception(error)
        log.warning("verification failed", sequence=sequence, number=number, error=reason_of(error), traceback=lines)
    return reason_of(error)


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
            reason = _failed(log, row["sequence"], about["number"], error)
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
