"""Verification: reads reported outputs by the library's own forward of the cut model, and explains differences."""

import math
from dataclasses import asdict
from typing import Any

import pandas as pd

import analysis
from oracle.engine import Difference, Engine
from oracle.executors import Pool, Searcher
from oracle.types import Allocation
from oracle.utils.progress import Watch

__all__ = ["explain", "verify"]

MAX_ROUNDING = 100
"""Leads above this multiple of the near-tie threshold are not attributed to rounding."""


def verify(pool: Pool, experiment: analysis.Experiment, summary: analysis.Summary, watch: Watch) -> pd.DataFrame:
    """Runs every reported allocation again, alone, by the library's own forward of the cut model, on all workers.

    Reported per sequence: the full model (the threshold), the minimal allocation and the oracle's choice. See
    `Engine.confirms`.

    Returns:
        One row per allocation: `sequence`, `number`, `allocation`, `cost`, `agrees`.
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
    prompts = experiment.sequences.set_index("sequence")["prompt"]
    groups = [(str(name), group) for name, group in recorded.groupby("sequence", sort=False)]
    # The longest first, so that no worker begins one when the others have ended.
    groups.sort(key=lambda named: -sum(map(len, named[1]["tokens"])))
    claims = [
        (
            prompts[name],
            [
                (tuple(allocation.tolist()), tuple(tokens.tolist()))
                for allocation, tokens in zip(group["allocation"], group["tokens"], strict=True)
            ],
        )
        for name, group in groups
    ]
    agrees = pd.Series(False, index=recorded.index)
    with watch("Verifying", len(recorded)) as advance:
        for place, found in pool.map(_confirm, claims):
            name, group = groups[place]
            agrees[group.index] = found
            advance(len(found), name)
    ordered = pd.concat([group for _, group in recorded.groupby("sequence", sort=False)])
    return ordered[["sequence", "number", "allocation", "cost"]].assign(agrees=agrees)


def _confirm(searcher: Searcher, claim: tuple[str, list[tuple[Allocation, tuple[int, ...]]]]) -> list[bool]:
    """Whether the outputs of allocations of one prompt are those of plain generation."""
    prompt, outputs = claim
    return searcher.engine.confirms(prompt, outputs)


def explain(engine: Engine, experiment: analysis.Experiment, verification: pd.DataFrame) -> list[dict[str, Any]]:
    """Per allocation that failed verification: the token, the margin, the rounding threshold and a remedy."""
    failed = verification.loc[~verification["agrees"], ["sequence", "number"]]
    recorded = failed.merge(experiment.evaluations, on=["sequence", "number"], validate="one_to_one")
    prompts = experiment.sequences.set_index("sequence")["prompt"]
    entries = []
    for row in recorded.to_dict("records"):
        prompt = engine.open(prompts[row["sequence"]])
        found = engine.difference(prompt, tuple(row["allocation"].tolist()), row["tokens"].tolist())
        tokens = {"recorded": found.recorded, "plain": found.plain} if found else {}
        texts = {f"{name}_text": None if one is None else engine.model.text([one]) for name, one in tokens.items()}
        entries.append(
            {
                "sequence": row["sequence"],
                "number": int(row["number"]),
                "cost": float(row["cost"]),
                **(asdict(found) if found else {}),
                **texts,
                "near_tie": engine.rounding()["near_tie"],
                "rounding": engine.rounding()["logits"],
                "remedy": _remedy(engine, found),
            }
        )
    return entries


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
