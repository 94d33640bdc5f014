"""Queries on a stored run; every answer is plain data for JSON or a table.

Common arguments: `folder`, the run; `criterion`, the metric to read it by (None for its own); `costs`, the cost of the
units, as for `analysis.load`.
"""

from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from analysis.knapsack.assignment import assignment
from analysis.knapsack.frontier import oracle_at as knapsack_at
from analysis.knapsack.items import quality_by_cost
from analysis.luck.rarity import one_unit_below, random_masks, statement
from analysis.per_sequence.frontiers import frontiers
from oracle.costs import costs_of_file
from oracle.errors import InputError
from oracle.metrics import SLACK as CRITERION_SLACK
from oracle.metrics import get_metric
from oracle.store import Run
from oracle.utils.text import nearest_hint

__all__ = [
    "allocations",
    "at_most",
    "budget_rows",
    "budgets",
    "by_task",
    "check_fraction",
    "measure",
    "oracle_at",
    "proven",
    "select",
    "sequence_frontier",
]

SLACK = 1e-9
"""Rounding up to which fractions count as equal."""

STATISTICAL = ["random_below", "random_below_at_most", "statistical"]
"""Columns of `budget_rows` that rest on masks drawn at random."""

SERVING = """
    WITH full_model AS (SELECT sequence, {metric} AS full_quality FROM evaluations WHERE number = 0),
    tried AS (
        SELECT sequence, allocation, cost, fraction, full_quality > $floor AS above_zero,
            NOT dropped AND {metric} >= full_quality - $tolerance - $slack AS qualifies
        FROM evaluations JOIN full_model USING (sequence) WHERE NOT dropped OR $own
    )
    SELECT allocation, any_value(cost) AS cost, any_value(fraction) AS fraction,
        count(DISTINCT sequence) FILTER (qualifies) AS sequences,
        sequences / (SELECT count(*) FROM full_model) AS share,
        count(DISTINCT sequence) FILTER (qualifies AND above_zero) AS nonzero,
        count(DISTINCT sequence) AS tried
    FROM tried GROUP BY allocation HAVING sequences > 0
    ORDER BY sequences DESC, cost, allocation LIMIT $count
"""
"""Dropped outputs failed the run's own criterion; their qualities under others are unknown."""


def _rarity_of(experiment: analysis.Experiment, sequence: str) -> list[dict[str, Any]] | None:
    """Share of random masks that qualify per size, of one sequence; None if the run drew none uniformly."""
    found = random_masks(experiment)
    if found is None:
        return None
    rows = found.by_sequence[found.by_sequence["sequence"] == sequence]
    return _records(rows.drop(columns=["sequence", "null_share", "null_low", "null_high"]))


def budgets(
    folder: Path, criterion: str | None = None, costs: str | None = None, *, statistical: bool = True
) -> list[dict[str, Any]]:
    """The minimal budget of every sequence, with its bounds; `statistical` as in `budget_rows`."""
    experiment = analysis.load(folder, criterion, costs=costs)
    return budget_rows(experiment, analysis.budgets(experiment), statistical=statistical)


def measure(folder: Path, costs: str | None = None) -> str:
    """Unit of the costs: layers, sublayers, FLOPs/token or ms/token."""
    if costs is None:
        return Run.open(folder).measure
    return f"{Run.open(folder).unit}s" if costs == "layers" else costs_of_file(costs).unit_of_measure


def budget_rows(
    experiment: analysis.Experiment, minimal: pd.DataFrame, *, statistical: bool = True
) -> list[dict[str, Any]]:
    """The rows of `budgets`, from a table of minimal budgets.

    With `statistical`, of runs with masks drawn at random, three columns state what these say of masks with one unit
    fewer than the smallest one found: their number (`random_below`), the share that qualifies at most
    (`random_below_at_most`, see `analysis.luck.rarity`), and both in words (`statistical`); None elsewhere.
    """
    minimal = minimal.merge(experiment.sequences[["sequence", "task"]], on="sequence")
    minimal["fraction"] = minimal["upper"] / experiment.full_cost
    columns = ["sequence", "task", "upper", "lower", "certified", "proof", "fraction", "allocation", "family"]
    columns += ["quality", "full_quality", "zero_quality", "vacuous", "informative"]
    if statistical:
        minimal, columns = minimal.assign(**_rare(experiment, minimal)), [*columns, *STATISTICAL]
    return _records(minimal[columns])


def _rare(experiment: analysis.Experiment, minimal: pd.DataFrame) -> dict[str, pd.Series]:
    """Statistical statements beside the proofs: on masks with one unit fewer than the smallest one found."""
    found, values = random_masks(experiment), list[list[Any]]([[None, None, None]] * len(minimal))
    if found is not None:
        values = [
            [None if text is None else int(row["drawn"]), None if text is None else float(row["at_most"]), text]
            for row in one_unit_below(found, minimal).to_dict("records")
            for text in [statement(row, experiment.unit)]
        ]
    # As objects, or None would become NaN and numbers of masks fractions.
    table = pd.DataFrame(values, index=minimal.index, columns=STATISTICAL, dtype=object)
    return {name: table[name] for name in STATISTICAL}


def proven(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Proofs among the rows of `budgets`.

    Returns:
        Number of `certified` sequences, number of those that can tell something (`certified_informative`), and the
        `mean_gap` (upper - lower) of the others, None without others.
    """
    gaps = [row["upper"] - row["lower"] for row in rows if not row["certified"]]
    return {
        "certified": len(rows) - len(gaps),
        "certified_informative": sum(row["certified"] and row["informative"] for row in rows),
        "mean_gap": sum(gaps) / len(gaps) if gaps else None,
    }


def at_most(rows: list[dict[str, Any]], fraction: float, measure: str = "layers") -> list[dict[str, Any]]:
    """Rows of `budgets` that need at most a fraction of the full model's cost, cheapest first."""
    full_cost = max((row["upper"] / row["fraction"] for row in rows if row["fraction"]), default=0.0)
    check_fraction(fraction, "--at-most", full_cost, measure)
    return sorted((row for row in rows if row["fraction"] <= fraction + SLACK), key=lambda row: row["fraction"])


def by_task(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of `budgets` per task; `fraction_of_others` is that of all other tasks' sequences that can tell something.

    The difference from the headline is the task's part in it.
    """
    table = pd.DataFrame(rows)
    table["told_nothing"] = table["vacuous"] != ""
    means = table.groupby("task", sort=False).agg(
        sequences=("sequence", "size"),
        full_quality=("full_quality", "mean"),
        fraction=("fraction", "mean"),
        zero_quality=("zero_quality", "sum"),
        vacuous=("told_nothing", "sum"),
        informative=("informative", "sum"),
        certified=("certified", "sum"),
    )
    told = table[table["informative"]]
    means.insert(3, "fraction_informative", told.groupby("task", sort=False)["fraction"].mean().reindex(means.index))
    means["fraction_of_others"] = [told.loc[told["task"] != task, "fraction"].mean() for task in means.index]
    shares = ["fraction_informative", "fraction_of_others"]
    means[shares] = means[shares].astype(object).where(means[shares].notna(), None)
    return _records(means.reset_index())


def oracle_at(folder: Path, budget: float, criterion: str | None = None, costs: str | None = None) -> dict[str, Any]:
    """The oracle over all sequences at a mean fraction of the layers, 0 to 1: its mean quality, and each allocation."""
    experiment = analysis.load(folder, criterion, costs=costs)
    check_fraction(budget, "--budget", experiment.full_cost, experiment.measure)
    metric = experiment.metric
    evaluations, full_cost = experiment.evaluations, experiment.full_cost
    items, number_NC = quality_by_cost(evaluations, full_cost, metric, step=experiment.step)
    chosen = assignment(evaluations, number_NC, knapsack_at(items, budget).costs, metric)
    full = evaluations.loc[evaluations["number"] == 0, metric].mean()
    return {
        "criterion": metric,
        "budget": budget,
        "fraction": float(chosen["cost"].mean() / full_cost),
        "quality": float(chosen["quality"].mean()),
        "full_quality": float(full),
        "sequences": len(chosen),
        "informative": int(analysis.budgets(experiment)["informative"].sum()),
        "assignment": _records(chosen),
    }


def sequence_frontier(
    folder: Path,
    sequence: str,
    budget: float | None = None,
    criterion: str | None = None,
    costs: str | None = None,
) -> dict[str, Any]:
    """One sequence: its prompt and references, and each allocation that beats all cheaper ones.

    With a budget, only allocations that cost at most this fraction of the layers.
    """
    experiment = analysis.load(folder, criterion, costs=costs)
    if budget is not None:
        check_fraction(budget, "--budget", experiment.full_cost, experiment.measure)
    known = {row["sequence"]: row for row in _records(experiment.sequences)}
    if sequence not in known:
        raise InputError(
            f"the run has no sequence '{sequence}'{nearest_hint(sequence, known)}; 'oracle query "
            f"{Run.open(folder).folder}' lists its {len(known)}"
        )
    mine = experiment.evaluations[experiment.evaluations["sequence"] == sequence]
    within = mine if budget is None else mine[mine["cost"] <= (budget + SLACK) * experiment.full_cost]
    better = within.iloc[frontiers(within, experiment.metric)]
    points = better[["cost", experiment.metric, "family", "allocation", "text"]].rename(
        columns={experiment.metric: "quality"}
    )
    points.insert(1, "fraction", points["cost"] / experiment.full_cost)
    full = mine[mine["number"] == 0].iloc[0]
    [row] = [row for row in budget_rows(experiment, analysis.budgets(experiment)) if row["sequence"] == sequence]
    return {
        **row,
        "criterion": experiment.metric,
        "prompt": known[sequence]["prompt"],
        "references": known[sequence]["references"],
        "full_output": full["text"],
        "evaluations": len(mine),
        "budget": budget,
        "rarity": _rarity_of(experiment, sequence),
        "frontier": _records(points),
    }


def allocations(folder: Path, count: int, criterion: str | None = None) -> list[dict[str, Any]]:
    """At most `count` allocations that meet the criterion on the most sequences, the cheapest first among equals.

    Each was tried on some sequences only; on the others its quality is unknown.

    Returns:
        `allocation`, `cost`, `fraction`, `sequences` (number on which it meets the criterion), `share` (of all
        sequences), `nonzero` (number of those where the full model scores above the metric's floor; on the others every
        allocation meets the criterion), `tried` (number of sequences on which it was tried).
    """
    if count < 1:
        raise InputError(f"--allocations needs at least 1, not {count}")
    from oracle.store.sql import select as select_from  # slow to import, and no other query needs it

    run = Run.open(folder)
    config, data = run.manifest["config"], run.queried()
    metric = get_metric(config["criterion"] if criterion is None else criterion)
    own = metric.name == config["criterion"]
    if "evaluations" in data.tables and metric.name not in data.tables["evaluations"].schema.names:
        raise InputError(
            f"criterion '{metric.name}' needs values that this run does not have: search again with "
            f"--criterion {metric.name}, or read it by another one"
        )
    values = {
        "floor": float("-inf") if metric.floor is None else metric.floor,
        "tolerance": float(config["tolerance"]) if own else 0.0,
        "slack": CRITERION_SLACK,
        "own": own,
        "count": min(count, 2**31),
    }
    return select_from(data, SERVING.format(metric=f'"{metric.name}"'), values).to_pylist()


def select(folder: Path, sql: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the result of one SELECT; see `Run.query`."""
    table = Run.open(folder).select(sql)
    return table.column_names, table.to_pylist()


def check_fraction(fraction: float, option: str, full_cost: float, measure: str) -> None:
    """Raises `InputError` unless a budget is a fraction; says which one a number of layers or a per cent would be.

    Args:
        fraction: the budget.
        option: the option that gave it.
        full_cost: cost of the full model.
        measure: unit of the costs.
    """
    if 0 <= fraction <= 1:
        return
    meant = [f"{fraction:g} of {full_cost:g} {measure} is {fraction / full_cost:.3g}"] * (1 < fraction <= full_cost)
    meant += [f"{fraction:g} % is {fraction / 100:g}"] * (1 < fraction <= 100)
    hint = f"; {', '.join(meant)}" if meant else ""
    raise InputError(f"{option} needs a fraction of the layers from 0 to 1, not {fraction:g}{hint}")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts of plain Python values."""
    rows = table.to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
