"""The sequences of a run as compact columns, and the detail of each: its outputs along the frontier."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.experiment import Experiment
from analysis.luck.rarity import one_unit_below, random_masks, statement
from analysis.per_sequence.frontiers import frontiers
from analysis.summary import Summary
from oracle.allocations import compact
from oracle.metrics import VACUOUS

__all__ = ["details", "rounded", "table"]

Details = list[list[Any]]


def rounded(values: Any, digits: int = 5) -> list[float | None]:
    """Numbers to a number of significant digits, enough for display; None for non-finite values."""
    return [
        float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values, float).tolist()
    ]


def table(experiment: Experiment, summary: Summary, part: pd.Series, verified: pd.DataFrame | None) -> dict[str, Any]:
    """Columns with one entry per sequence, in the order of the run.

    Args:
        experiment, summary: the whole run.
        part: for each sequence the index of its task among the parts.
        verified: `sequence`, `number` and whether it `agrees` with plain generation; None if unknown.
    """
    sequences = experiment.sequences.assign(part=part.to_numpy())
    rows = sequences.merge(summary.minimal, on="sequence", validate="one_to_one")
    agrees = pd.Series(None, index=rows.index, dtype=object)
    if verified is not None:
        known = verified.drop_duplicates(["sequence", "number"]).set_index(["sequence", "number"])["agrees"]
        agrees = known.reindex(pd.MultiIndex.from_frame(rows[["sequence", "number"]])).astype(object)
    return {
        "id": rows["sequence"].tolist(),
        "part": rows["part"].tolist(),
        "prompt": rows["prompt"].tolist(),
        "references": [list(texts) for texts in rows["references"]],
        "promptTokens": rows["prompt_tokens"].tolist() if "prompt_tokens" in rows else None,
        "upper": rounded(rows["upper"], 7),
        "lower": rounded(rows["lower"], 7),
        "fraction": rounded(rows["upper"] / experiment.full_cost),
        "quality": rounded(rows["quality"]),
        "full": rounded(rows["full_quality"]),
        "zero": rows["zero_quality"].astype(int).tolist(),
        "vacuous": [VACUOUS.get(reason, "") for reason in rows["vacuous"]],
        "proven": rows["certified"].astype(int).tolist(),
        "proof": rows["proof"].tolist(),
        "statistical": _statistical(experiment, rows),
        "layers": [compact(allocation, none="") for allocation in rows["allocation"]],
        "agrees": [None if pd.isna(value) else int(value) for value in agrees],
    }


def _statistical(experiment: Experiment, rows: pd.DataFrame) -> list[str | None] | None:
    """What random masks say of masks with one unit fewer than the smallest one found; None without random masks."""
    found = random_masks(experiment)
    if found is None:
        return None
    return [statement(row, experiment.unit) for row in one_unit_below(found, rows).to_dict("records")]


def details(experiment: Experiment, summary: Summary) -> Details:
    """Detail of each sequence.

    Returns:
        One list per sequence: the full model's output, then a list for each evaluation that beats all cheaper ones,
        from the cheapest: cost, quality, layers that ran, family, output (None if it equals the full model's), whether
        it is the minimal budget (1), the oracle's choice (2), both (3) or neither (0).
    """
    evaluations, metric = experiment.evaluations, experiment.metric
    chosen = frontiers(evaluations, metric)
    full = evaluations[evaluations["number"] == 0].set_index("sequence")["text"]
    found: Details = [[full[name]] for name in experiment.sequences["sequence"]]
    minimal, assigned = (
        frame.set_index("sequence")["number"].reindex(experiment.sequences["sequence"]).to_numpy()
        for frame in (summary.minimal, summary.assignment)
    )
    columns = evaluations[["number", "cost", metric, "allocation", "family", "text"]].iloc[chosen]
    for n, (number, cost, value, layers, family, text) in zip(
        experiment.codes()[chosen].tolist(), columns.itertuples(index=False, name=None), strict=True
    ):
        mark = int(number == minimal[n]) + 2 * int(number == assigned[n])
        output = None if text == found[n][0] else text
        found[n].append([*rounded([cost], 7), *rounded([value]), compact(layers, none=""), family, output, mark])
    return found
