"""Questions to a stored run; every answer is plain data, ready for JSON or a table."""

from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from oracle.errors import InputError
from oracle.store import Run

__all__ = ["budgets", "by_task", "compact", "oracle_at", "sequence_frontier"]


def compact(allocation: Any) -> str:
    """An allocation for people: runs of layers as ranges, such as `0-3,7,9-29`; `none` without layers."""
    layers = [int(layer) for layer in allocation]
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts) or "none"


def budgets(folder: Path, criterion: str | None = None) -> list[dict[str, Any]]:
    """The minimal budget of every sequence, with its bounds."""
    return _budgets(analysis.load(folder, criterion))


def _budgets(experiment: analysis.Experiment) -> list[dict[str, Any]]:
    minimal = analysis.minimal_budgets(
        experiment.evaluations,
        layers=experiment.layers,
        metric=experiment.metric,
        tolerance=experiment.tolerance,
        floor=experiment.floor,
        exhausted=experiment.exhausted,
    )
    minimal = minimal.merge(experiment.sequences[["sequence", "task"]], on="sequence")
    minimal["fraction"] = minimal["upper"] / experiment.layers
    columns = ["sequence", "task", "upper", "lower", "certified", "proof", "fraction", "allocation", "family"]
    return _records(minimal[[*columns, "quality", "full_quality", "zero_quality"]])


def by_task(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of `budgets` per task."""
    table = pd.DataFrame(rows)
    means = table.groupby("task", sort=False).agg(
        sequences=("sequence", "size"),
        full_quality=("full_quality", "mean"),
        fraction=("fraction", "mean"),
        zero_quality=("zero_quality", "sum"),
        certified=("certified", "sum"),
    )
    return _records(means.reset_index())


def oracle_at(folder: Path, budget: float, criterion: str | None = None) -> dict[str, Any]:
    """The data-set oracle at a mean budget: its mean quality, and the allocation of every sequence.

    Args:
        folder: the run.
        budget: mean fraction of layers, 0 to 1.
        criterion: metric to read the run by; its own by default.
    """
    _check_budget(budget)
    experiment = analysis.load(folder, criterion)
    metric = experiment.metric
    quality_NK, number_NK = analysis.quality_by_cost(experiment.evaluations, experiment.layers, metric)
    frontier = analysis.oracle_frontier(quality_NK)
    chosen = analysis.assignment(experiment.evaluations, number_NK, frontier.costs(budget), metric)
    full = experiment.evaluations.loc[experiment.evaluations["number"] == 0, metric].mean()
    return {
        "criterion": metric,
        "budget": budget,
        "fraction": float(chosen["cost"].mean() / experiment.layers),
        "quality": float(chosen["quality"].mean()),
        "full_quality": float(full),
        "assignment": _records(chosen),
    }


def sequence_frontier(
    folder: Path, sequence: str, budget: float | None = None, criterion: str | None = None
) -> dict[str, Any]:
    """One sequence: its prompt and references, and each allocation that beats all cheaper ones.

    Args:
        folder: the run.
        sequence: id of the sequence.
        budget: only allocations that cost at most this fraction of the layers.
        criterion: metric to read the run by; its own by default.
    """
    if budget is not None:
        _check_budget(budget)
    experiment = analysis.load(folder, criterion)
    known = {row["sequence"]: row for row in _records(experiment.sequences)}
    if sequence not in known:
        raise InputError(
            f"the run has no sequence '{sequence}'; 'oracle query {Run.open(folder).folder}' lists its {len(known)}"
        )
    mine = experiment.evaluations[experiment.evaluations["sequence"] == sequence]
    within = mine if budget is None else mine[mine["cost"] <= budget * experiment.layers + 1e-9]
    ordered = within.sort_values(["cost", experiment.metric, "number"], ascending=[True, False, True])
    quality = ordered[experiment.metric]
    better = ordered[quality > quality.cummax().shift(fill_value=-float("inf"))]
    points = better[["cost", experiment.metric, "family", "allocation", "text"]].rename(
        columns={experiment.metric: "quality"}
    )
    points.insert(1, "fraction", points["cost"] / experiment.layers)
    full = mine[mine["number"] == 0].iloc[0]
    [row] = [row for row in _budgets(experiment) if row["sequence"] == sequence]
    return {
        **row,
        "criterion": experiment.metric,
        "prompt": known[sequence]["prompt"],
        "references": known[sequence]["references"],
        "full_output": full["text"],
        "evaluations": len(mine),
        "frontier": _records(points),
    }


def _check_budget(budget: float) -> None:
    if not 0 <= budget <= 1:
        raise InputError(f"--budget needs a fraction of the layers from 0 to 1, not {budget}")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts of plain Python values."""
    rows = table.to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
