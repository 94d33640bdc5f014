"""Minimal budget of every sequence, best found and proven, and the savings of groups of sequences.

In shapes, X is the numbers of units, 0..L.
"""

from collections.abc import Mapping, Sequence
from math import comb, fsum

import numpy as np
import pandas as pd

from analysis.experiment import METRICS, Experiment, InputError, as_experiment, load
from analysis.grouping import BoolArray, CostArray, FloatArray, Groups, IntArray, allocation_keys, group
from analysis.stats import intervals
from oracle.metrics import SLACK, qualifies, sees, why_vacuous
from oracle.types import RunPath
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_list

__all__ = [
    "budgets",
    "budgets_of",
    "by_sequence",
    "fractions",
    "informative",
    "mean_fraction",
    "minimal_budgets",
    "savings",
    "savings_by_criterion",
    "upper_budgets",
]

STATISTICS = ("mean", "q25", "median", "q75")
"""Statistics of a group's minimal fractions."""


def _qualifies(groups: Groups, tolerance: float) -> BoolArray:
    return qualifies(groups.quality, groups.full[groups.code], tolerance)


def _least_cost(groups: Groups, qualifies_E: BoolArray) -> CostArray:
    # The full model qualifies, so the dearest evaluation is an upper bound.
    upper_N = np.full(len(groups.ids), groups.cost.max())
    np.minimum.at(upper_N, groups.code[qualifies_E], groups.cost[qualifies_E])
    return upper_N


def upper_budgets(evaluations: pd.DataFrame, *, metric: str, tolerance: float) -> CostArray:
    """Least cost found that meets the criterion, shape (N,), per generated token."""
    groups = group(evaluations, metric)
    return _least_cost(groups, _qualifies(groups, tolerance))


def minimal_budgets(experiment: RunPath) -> pd.DataFrame:
    """The minimal budget of every sequence of a run, in its cost.

    Returns:
        One row per sequence: the columns of `budgets_of`; `vacuous`: why no allocation can be told from another
        (`oracle.metrics.VACUOUS`), or empty; `informative`, whether the sequence can tell something: neither vacuous
        nor of zero quality.
    """
    experiment = as_experiment(experiment)
    found = budgets_of(
        experiment.evaluations,
        layers=experiment.layers,
        metric=experiment.metric,
        tolerance=experiment.tolerance,
        floor=experiment.floor,
        exhausted=experiment.exhausted,
        least_costs=experiment.least_costs,
        unit=experiment.unit,
        paths=experiment.paths,
    )
    found["vacuous"] = _vacuous(experiment, found)
    found["informative"] = ~found["zero_quality"] & (found["vacuous"] == "")
    return found


budgets = minimal_budgets
"""Another name of `minimal_budgets`."""


def informative(minimal: pd.DataFrame) -> pd.Series:
    """Whether each sequence can tell something; above zero quality is all that is known without that column."""
    return minimal["informative"] if "informative" in minimal else ~minimal["zero_quality"]


def _vacuous(experiment: Experiment, minimal: pd.DataFrame) -> list[str]:
    """The reason of each sequence. A metric that gave its output more than zero has seen its references."""
    names = minimal["sequence"]
    full = experiment.evaluations[experiment.evaluations["number"] == 0].set_index("sequence").loc[names]
    rows = experiment.sequences.set_index("sequence").loc[names]

    def known(name: str) -> list[int | None]:
        values = rows[name] if name in rows else [None] * len(rows)
        return [None if pd.isna(value) else int(value) for value in values]

    tokens = [len(output) for output in full["tokens"]] if "tokens" in full else [None] * len(rows)
    references = rows["references"] if "references" in rows else [()] * len(rows)
    alike = _one_score(experiment, minimal)
    counts = (tokens, known("choice_tokens"), known("reference_tokens"), references, minimal["zero_quality"], alike)
    return [
        why_vacuous(
            experiment.kind,
            experiment.scope,
            seen=not zero or sees(experiment.metric, tuple(texts)),
            output_tokens=output,
            choice_tokens=choice,
            reference_tokens=reference,
            one_score=same,
        )
        for output, choice, reference, texts, zero, same in zip(*counts, strict=True)
    ]


def _one_score(experiment: Experiment, minimal: pd.DataFrame) -> list[bool]:
    """Whether different outputs of a sequence all have one score, above zero, at the least budget there is as well."""
    evaluations = experiment.evaluations
    if "tokens" not in evaluations:
        return [False] * len(minimal)
    spread = evaluations.groupby("sequence")[experiment.metric].agg(np.ptp).loc[minimal["sequence"]].to_numpy()
    alike_N = (spread <= SLACK) & (minimal["certified"] & ~minimal["zero_quality"]).to_numpy()
    alike_N &= ~minimal["sequence"].isin(experiment.dropped["sequence"]).to_numpy()
    rows = evaluations[evaluations["sequence"].isin(minimal.loc[alike_N, "sequence"])]
    outputs = rows["tokens"].map(tuple).groupby(rows["sequence"]).nunique()
    return [bool(alike and outputs[name] > 1) for alike, name in zip(alike_N, minimal["sequence"], strict=True)]


def budgets_of(
    evaluations: pd.DataFrame,
    *,
    layers: int,
    metric: str,
    tolerance: float,
    floor: float | None = None,
    exhausted: Mapping[str, int] | None = None,
    least_costs: CostArray | None = None,
    unit: str = "layer",
    paths: bool = False,
) -> pd.DataFrame:
    """Minimal budget of every sequence of a table: least cost whose quality >= the full model's - tolerance.

    The search stores this table under its own criterion and cost (`Run.to_frame`, the SQL view, export and replay read
    it); `oracle query` computes it again, because it may be asked for another criterion or cost.

    Args:
        evaluations: `sequence`, `number`, `family`, `allocation`, `cost` and the column `metric`.
        layers: L.
        metric: column with the quality.
        tolerance: allowed loss, in units of the metric.
        floor: lowest value of the metric, None if it has none.
        exhausted: by sequence, the number of units below which the search tested every mask, where qualifying masks are
            among the evaluations; masks tested without decoding or dropped are known only from here.
        least_costs: cost of the k cheapest units, for k = 0..L; None for k, the number of layers.
        unit: `layer` or `sublayer`, for `proof`.
        paths: whether allocations may repeat layers: what is tested of skip masks then proves nothing of these.

    Returns:
        One row per sequence: `sequence`; `upper`, the least cost found; `allocation`, `family`, `number`, `quality` of
        the evaluation chosen (at that cost the best quality, then the lowest number); `full_quality`; `lower`, below
        which every skip mask was evaluated and failed: an untested mask has at least k units, the least number of which
        not all masks were tested, and costs no less than the k cheapest; `certified` (lower == upper: no skip mask is
        cheaper; with `paths` only where nothing can be cheaper); `proof`, in words; `zero_quality`, whether the full
        model scores no more than the floor (every allocation qualifies).
    """
    groups = group(evaluations, metric)
    qualifies_E = _qualifies(groups, tolerance)
    upper_N = _least_cost(groups, qualifies_E)
    cheapest = np.flatnonzero(qualifies_E & (groups.cost == upper_N[groups.code]))
    order = np.lexsort((groups.number[cheapest], -groups.quality[cheapest], groups.code[cheapest]))
    rows = cheapest[order]
    chosen = evaluations.iloc[rows[np.unique(groups.code[rows], return_index=True)[1]]]
    least_X = np.arange(layers + 1) if least_costs is None else least_costs
    # From this number of units on, a mask costs no less than the best found.
    enough_N = np.searchsorted(least_X, upper_N)
    tested_N = _tested(groups, evaluations["allocation"], enough_N, layers)
    if exhausted is not None:
        proven_N = np.array([exhausted.get(name, 0) for name in groups.ids], dtype=np.int64)
        tested_N = np.maximum(tested_N, np.minimum(proven_N, enough_N))
    lower_N = np.minimum(least_X[tested_N], upper_N)
    return pd.DataFrame(
        {
            "sequence": groups.ids,
            "upper": upper_N,
            "allocation": chosen["allocation"].to_numpy(),
            "family": chosen["family"].to_numpy(),
            "number": chosen["number"].to_numpy(),
            "quality": chosen[metric].to_numpy(np.float64),
            "full_quality": groups.full,
            "lower": lower_N,
            "certified": (lower_N == upper_N) & ((enough_N == 0) | (not paths)),
            "proof": [_proof(*both, unit, paths) for both in zip(tested_N, enough_N, strict=True)],
            "zero_quality": groups.full <= (-np.inf if floor is None else floor),
        }
    )


def _tested(groups: Groups, allocations: pd.Series, enough_N: IntArray, layers: int) -> IntArray:
    """Least number of units, at most `enough_N`, with an untested skip mask."""
    X = layers + 1
    all_X = np.array([min(comb(layers, k), np.iinfo(np.int64).max) for k in range(X)])
    count_E = np.fromiter(map(len, allocations), np.int64, count=len(allocations))
    below = np.flatnonzero((count_E < enough_N[groups.code]) & (count_E < X))
    cell = groups.code * X + count_E
    # Only budgets with enough rows can be exhausted, so only their allocations are compared.
    rows_NX = np.bincount(cell[below], minlength=len(groups.ids) * X)
    below = below[(rows_NX >= np.tile(all_X, len(groups.ids)))[cell[below]]]
    key, is_mask = allocation_keys(allocations.iloc[below])
    distinct = pd.DataFrame({"cell": cell[below], "key": key})[is_mask].drop_duplicates()
    masks_NX = np.bincount(distinct["cell"], minlength=len(groups.ids) * X).reshape(-1, X)
    open_NX = np.column_stack([masks_NX < all_X, np.ones(len(groups.ids), dtype=bool)])
    return np.minimum(open_NX.argmax(axis=1), enough_N)


def _proof(tested: int, enough: int, unit: str, paths: bool) -> str:
    if tested == 0:
        return f"no budget is smaller than 0 {unit}s" if enough == 0 else "none"
    return f"all masks of at most {tested - 1} {unit}s tested" + ", but not all paths" * paths


def fractions(minimal: pd.DataFrame, full_cost: float) -> FloatArray:
    """Minimal budgets as fractions of the full model's cost.

    Args:
        minimal: table of `minimal_budgets`.
        full_cost: of the full model: L where the cost is the number of layers.
    """
    return minimal["upper"].to_numpy(np.float64) / full_cost


def mean_fraction(costs: CostArray, full_cost: float) -> float:
    """Mean of costs over the full model's, from their exact sum: rounded once, so that equal means are equal."""
    return fsum(costs) / (len(costs) * full_cost)


def by_sequence(experiment: RunPath) -> pd.DataFrame:
    """The minimal budgets of a run with the other columns of each sequence.

    Returns:
        The columns of `budgets` and of the run's sequences; `fraction` and `lower_fraction`, the bounds over the full
        model's cost.
    """
    experiment = as_experiment(experiment)
    minimal = budgets(experiment)
    minimal.insert(1, "fraction", minimal["upper"] / experiment.full_cost)
    minimal.insert(2, "lower_fraction", minimal["lower"] / experiment.full_cost)
    return minimal.merge(experiment.sequences, on="sequence", how="left", validate="one_to_one")


def savings(experiment: RunPath, by: Sequence[str] = ("task",), *, resamples: int = 1000) -> pd.DataFrame:
    """Fraction of the full model's cost that suffices, per group of sequences.

    Each group has a row of all its sequences (`counted` is `all`) and one of those that can tell something
    (`informative`): without those of zero quality and those that are vacuous; see `budgets`.

    Args:
        experiment: the run.
        by: columns of `by_sequence` that define the groups; none for a single group.
        resamples: B of the bootstrap over the sequences of a group; 0 for no intervals.

    Returns:
        The columns `by`, in the order of each group's first sequence; `counted`; number of `sequences`, of those with
        `zero_quality` and of those that are `vacuous`; `full_quality`, mean of the full model; of the minimal
        fraction (best found) `mean`, `q25`, `median` and `q75`, each with `_low` and `_high`, the ends of its 95 %
        percentile bootstrap interval (NaN for fewer than two sequences); `lower`, mean of the fractions proven
        necessary; `certified`, share of the sequences whose bounds meet. NaN where nothing is counted.

    Raises:
        InputError: if there is no such column.
    """
    check_list(by, "by")
    experiment = as_experiment(experiment)
    table, rows = by_sequence(experiment), []
    if unknown := set(by).difference(table.columns):
        near = nearest_hint(str(min(unknown)), table.columns)
        raise InputError(f"columns of {', '.join(table.columns)} are required to group by, got {sorted(unknown)}{near}")
    for key, group_table in table.groupby(list(by), sort=False, dropna=False) if by else [((), table)]:
        for counted, part in (("all", group_table), ("informative", group_table[group_table["informative"]])):
            label = dict(zip(by, key, strict=True))
            rows.append({**label, "counted": counted, **_saving(part, experiment, resamples)})
    return pd.DataFrame(rows)


def _saving(part: pd.DataFrame, experiment: Experiment, resamples: int) -> dict[str, float]:
    """One row of `savings`, without the group's label."""
    row: dict[str, float] = {
        "sequences": len(part),
        "zero_quality": int(part["zero_quality"].sum()),
        "vacuous": int((part["vacuous"] != "").sum()),
        "full_quality": part["full_quality"].mean(),
    }
    fraction, none = part["fraction"].to_numpy(np.float64), np.full(len(STATISTICS), np.nan)
    found = none
    if len(part):
        # Equal to the summary's mean to the last digit.
        found = _statistics(fraction)
        found[0] = mean_fraction(part["upper"].to_numpy(), experiment.full_cost)
    low, high = intervals(fraction, _statistics, resamples=resamples, seed=experiment.seed) or (none, none)
    for name, *values in zip(STATISTICS, found.tolist(), low.tolist(), high.tolist(), strict=True):
        row |= zip((name, f"{name}_low", f"{name}_high"), values, strict=True)
    return {**row, "lower": part["lower_fraction"].mean(), "certified": part["certified"].mean()}


def _statistics(fraction: FloatArray, axis: int = -1) -> FloatArray:
    """`STATISTICS` along the first axis; quartiles are interpolated between two values."""
    return np.stack([fraction.mean(axis=axis), *np.quantile(fraction, [0.25, 0.5, 0.75], axis=axis)])


def savings_by_criterion(
    folder: RunPath, metrics: Sequence[str] | None = None, by: Sequence[str] = (), *, resamples: int = 1000
) -> pd.DataFrame:
    """`savings` of one run read by several metrics, with the columns `criterion` and `tolerance` in front.

    Args:
        folder: the run.
        metrics: criteria to read it by; None for all of which every evaluation has a value. The run's own tolerance
            applies to its own criterion, 0 to the others, whose units differ.
        by: as for `savings`.
        resamples: as for `savings`.
    """
    check_list(metrics, "metrics")
    own, tables = load(folder), []
    complete = own.evaluations.columns[own.evaluations.notna().all()]
    for metric in [name for name in METRICS if name in complete] if metrics is None else metrics:
        experiment = own if metric == own.metric else load(folder, metric)
        table = savings(experiment, by, resamples=resamples)
        table.insert(0, "criterion", experiment.metric)
        table.insert(1, "tolerance", experiment.tolerance)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
