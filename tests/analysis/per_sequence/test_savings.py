"""Minimal budgets against a slow, plain reading of their definition."""

import statistics
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import InputError, load, savings, savings_by_criterion, summarise
from analysis.per_sequence.savings import budgets_of, fractions
from oracle.metrics import METRICS
from oracle.search import Archive, Space
from oracle.types import Outcome

LAYERS = 3
MASKS = [mask for k in range(LAYERS + 1) for mask in combinations(range(LAYERS), k)]


def frame(rows, sequence="s"):
    """Rows of (allocation, quality), the first one the full model."""
    return pd.DataFrame(
        {
            "sequence": sequence,
            "number": range(len(rows)),
            "family": ["full"] + ["random"] * (len(rows) - 1),
            "allocation": [list(allocation) for allocation, _ in rows],
            "cost": [len(allocation) for allocation, _ in rows],
            "q": [float(quality) for _, quality in rows],
        }
    )


def one(rows, *, layers=LAYERS, tolerance=0.0, floor=0.0):
    return budgets_of(frame(rows), layers=layers, metric="q", tolerance=tolerance, floor=floor).iloc[0]


def test_takes_the_least_cost_then_the_best_quality_then_the_lowest_number():
    full = ((0, 1, 2), 0.5)
    found = one([full, ((0, 1), 0.9), ((1,), 0.5), ((2,), 0.6), ((0,), 0.6)])
    assert (found["upper"], found["number"], found["allocation"], found["quality"]) == (1, 3, [2], 0.6)
    assert found["family"] == "random"
    assert (found["lower"], found["proof"], found["certified"]) == (0, "none", False)


def test_certified_when_everything_cheaper_was_evaluated_and_failed():
    rows = [((0, 1, 2), 0.5), ((), 0.0), ((0,), 0.1), ((1,), 0.2), ((2,), 0.3), ((0, 2), 0.7)]
    found = one(rows)
    assert (found["lower"], found["upper"], bool(found["certified"])) == (2, 2, True)
    assert found["proof"] == "all masks of at most 1 layers tested"


def test_masks_prove_nothing_of_paths():
    rows = [((0, 1, 2), 0.5), ((), 0.0), ((0,), 0.1), ((1,), 0.2), ((2,), 0.3), ((0, 0), 0.7)]
    found = budgets_of(frame(rows), layers=LAYERS, metric="q", tolerance=0.0, unit="sublayer", paths=True).iloc[0]
    assert (found["lower"], found["upper"], bool(found["certified"])) == (2, 2, False)
    assert found["proof"] == "all masks of at most 1 sublayers tested, but not all paths"
    nothing = budgets_of(frame([((0, 1, 2), 0.0), ((), 0.0)]), layers=LAYERS, metric="q", tolerance=0.0, paths=True)
    assert bool(nothing["certified"][0]), "nothing is cheaper than nothing"


def test_a_mask_evaluated_twice_or_a_layer_path_proves_nothing():
    repeated = [((0, 1, 2), 0.5), ((), 0.0), ((0,), 0.1), ((1,), 0.2), ((1,), 0.2), ((0, 2), 0.7)]
    assert one(repeated)["lower"] == 1
    paths = [((0, 1, 2), 0.5), ((), 0), ((0,), 0), ((1,), 0), ((2,), 0), ((0, 1), 0), ((0, 2), 0), ((2, 1), 0)]
    assert one(paths)["lower"] == 2


def test_a_gap_in_the_exhausted_budgets_ends_the_proof():
    rows = [((0, 1, 2), 0.5), ((0,), 0.1), ((1,), 0.2), ((2,), 0.3), ((0, 2), 0.7)]
    assert one(rows)["lower"] == 0


def test_no_layer_at_all_is_certified():
    found = one([((0, 1, 2), 0.5), ((), 0.5)])
    assert (found["upper"], found["lower"], bool(found["certified"])) == (0, 0, True)


def test_the_full_model_alone_is_the_budget_when_nothing_else_qualifies():
    found = one([((0, 1, 2), 0.5), ((0,), 0.4)])
    assert (found["upper"], found["number"], found["family"]) == (3, 0, "full")


@pytest.mark.parametrize(("tolerance", "upper"), [(0.0, 3), (0.09, 3), (0.1, 1), (0.2, 1)])
def test_tolerance_is_inclusive_in_spite_of_rounding(tolerance, upper):
    assert 0.8 - 0.1 > 0.7, "the case needs a difference that is rounded up"
    assert one([((0, 1, 2), 0.8), ((0,), 0.7)], tolerance=tolerance)["upper"] == upper


@pytest.mark.parametrize(("quality", "floor", "zero"), [(0.0, 0.0, True), (0.1, 0.0, False), (-3.0, None, False)])
def test_zero_quality(quality, floor, zero):
    assert bool(one([((0, 1, 2), quality)], floor=floor)["zero_quality"]) is zero


def test_sequences_keep_their_order_and_rows_may_come_in_any():
    table = pd.concat(
        [
            frame([((0, 1, 2), 0.5), ((1,), 0.6)], "b"),
            frame([((0, 1, 2), 0.5), ((1, 2), 0.6)], "a"),
        ]
    ).iloc[[1, 3, 2, 0]]
    found = budgets_of(table, layers=LAYERS, metric="q", tolerance=0.0)
    assert found["sequence"].tolist() == ["b", "a"]
    assert found["upper"].tolist() == [1, 2]
    assert found["full_quality"].tolist() == [0.5, 0.5]
    assert fractions(found, LAYERS).tolist() == [1 / 3, 2 / 3]


@given(
    picks=st.lists(st.tuples(st.sampled_from(MASKS), st.integers(0, 4)), max_size=14),
    full=st.integers(0, 4),
    tolerance=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_definition(picks, full, tolerance):
    rows = [((0, 1, 2), full), *picks]
    found = one(rows, tolerance=tolerance)
    good = [(len(mask), -quality, i) for i, (mask, quality) in enumerate(rows) if quality >= full - tolerance]
    cost, quality, number = min(good)
    assert (found["upper"], found["quality"], found["number"]) == (cost, -quality, number)
    lower = 0
    while lower < cost and len({mask for mask, _ in rows if len(mask) == lower}) == comb(LAYERS, lower):
        lower += 1
    assert found["lower"] == lower
    assert found["certified"] == (lower == cost)


@given(
    seed=st.integers(0, 10_000),
    picks=st.lists(st.tuples(st.sampled_from(MASKS), st.integers(0, 4)), max_size=24),
    exhausted=st.integers(0, LAYERS + 1),
)
@settings(max_examples=100, deadline=None)
def test_other_costs_are_proven_as_the_search_proves_them(seed, picks, exhausted):
    """Against `Archive`, whose costs leave out what every allocation pays."""
    units = np.random.default_rng(seed).integers(1, 9, LAYERS) / 4
    archive = Archive(Space(units=LAYERS, free=tuple(range(LAYERS)), costs=tuple(units)), "q")
    rows = [((0, 1, 2), 3), *picks]
    unlike = dict(reversed(rows))
    archive.add(
        Outcome(allocation=mask, family="", tokens=(), text="", finished=True, margin=0.0, quality={"q": q})
        for mask, q in unlike.items()
    )
    for count in range(exhausted):
        archive.exhaust(count)
    table = frame(list(unlike.items()))
    table["number"] = [0 if len(mask) == LAYERS else number + 1 for number, mask in enumerate(unlike)]
    table["cost"] = [2.0 + sum(units[list(mask)]) for mask in unlike]
    least = 2.0 + np.append(0.0, np.cumsum(np.sort(units)))
    given_costs = {"exhausted": {"s": archive.exhausted_below}, "least_costs": least}
    found = budgets_of(table, layers=LAYERS, metric="q", tolerance=0.0, **given_costs).iloc[0]
    upper = archive.upper
    assert (found["upper"], found["lower"]) == (2.0 + archive.space.cost(upper.allocation), 2.0 + archive.lower)
    assert bool(found["certified"]) == archive.certified
    assert tuple(found["allocation"]) == upper.allocation or found["quality"] == upper.quality["q"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table[table["number"] > 0], "full model"),
        (lambda table: pd.concat([table, table]), "has 2"),
        (lambda table: table.assign(q=[0.5, np.nan]), "lacks one"),
        (lambda table: table.iloc[:0], "at least one evaluation"),
    ],
)
def test_bad_tables_are_refused_in_one_line(change, message):
    table = change(frame([((0, 1, 2), 0.5), ((1,), 0.6)]))
    with pytest.raises(InputError, match=message) as caught:
        budgets_of(table, layers=LAYERS, metric="q", tolerance=0.0)
    assert "\n" not in str(caught.value)


def test_budgets_exhausted_among_a_million_evaluations_are_proven():
    sequences, layers = 30, 30
    masks = [mask for k in range(5) for mask in combinations(range(layers), k)]
    arrays = [np.array(mask, dtype=np.int16) for mask in [range(layers), *masks]]
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "sequence": np.repeat([f"s{n}" for n in range(sequences)], len(arrays)),
            "number": np.tile(np.arange(len(arrays)), sequences),
            "family": "random",
            "allocation": arrays * sequences,
            "cost": np.tile([len(a) for a in arrays], sequences),
            "q": rng.random(len(arrays) * sequences) * 0.5,
        }
    )
    table.loc[table["number"] == 0, "q"] = 0.9
    assert len(table) > 900_000
    found = budgets_of(table, layers=layers, metric="q", tolerance=0.0)
    assert (found["lower"] == 5).all()
    assert (found["upper"] == layers).all()


def least_fractions(experiment, tolerance=0.0):
    """By sequence the least fraction found, and whether the full model scores zero: row by row."""
    found = {}
    for name, rows in experiment.evaluations.groupby("sequence"):
        full = rows.loc[rows["number"] == 0, experiment.metric].item()
        good = rows[rows[experiment.metric] >= full - tolerance - 1e-12]
        found[name] = (min(good["cost"]) / experiment.layers, full <= 0, full)
    return found


def test_savings_of_each_task_are_those_of_a_slow_reading(experiment):
    table = savings(experiment).set_index(["task", "counted"])
    least, tasks = least_fractions(experiment), dict(experiment.sequences[["sequence", "task"]].to_numpy())
    assert table.index.tolist() == [(task, c) for task in dict.fromkeys(tasks.values()) for c in ("all", "informative")]
    assert table["zero_quality"].xs("all", level=1).sum() == 3
    for (task, counted), row in table.iterrows():
        mine = [value for name, value in least.items() if tasks[name] == task and (counted == "all" or not value[1])]
        assert row["sequences"] == len(mine)
        assert row["zero_quality"] == sum(zero for _, zero, _ in mine)
        if not mine:
            assert row[["mean", "median", "q25", "lower", "certified", "full_quality"]].isna().all()
            continue
        values = [value for value, _, _ in mine]
        assert row["mean"] == pytest.approx(statistics.mean(values))
        assert row["full_quality"] == pytest.approx(statistics.mean(full for _, _, full in mine))
        assert row["median"] == pytest.approx(statistics.median(values))
        if len(values) > 1:
            quartiles = statistics.quantiles(values, n=4, method="inclusive")
            assert row[["q25", "q75"]].tolist() == pytest.approx([quartiles[0], quartiles[2]])
        for name in ("mean", "q25", "median", "q75"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert np.isnan(low) == np.isnan(high) == (len(values) < 2)
            assert len(values) < 2 or (np.diff([min(values), low, row[name], high, max(values)]) >= -1e-12).all()


def test_the_interval_of_a_few_sequences_is_that_of_all_their_resamples(experiment):
    """Three sequences have 27 resamples: their quantiles are known."""
    table = savings(experiment, resamples=20_000)
    least, tasks = least_fractions(experiment), dict(experiment.sequences[["sequence", "task"]].to_numpy())
    row = table[table["counted"] == "all"].iloc[0]
    values = [value for name, (value, _, _) in least.items() if tasks[name] == row["task"]]
    assert len(values) == 3
    every = np.array([[a, b, c] for a in values for b in values for c in values])
    for name, each in (("mean", every.mean(axis=1)), ("median", np.median(every, axis=1))):
        expected = np.quantile(each, [0.025, 0.975], method="inverted_cdf")
        assert row[[f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(expected)


def test_all_sequences_at_once_are_what_the_summary_says(experiment):
    summary = summarise(experiment, bootstrap=1000, permutations=0)
    every, informative = savings(experiment, by=()).to_dict("records")
    assert every["mean"] == summary.per_sequence_fraction
    assert (every["mean_low"], every["mean_high"]) == summary.per_sequence_interval
    assert informative["mean"] == summary.informative.per_sequence_fraction
    assert (every["zero_quality"], informative["zero_quality"]) == (summary.zero_quality_sequences, 0)
    assert every["certified"] == summary.certified / 24
    assert informative["certified"] == pytest.approx(summary.informative.certified / 21)
    assert "mean_low" not in savings(experiment, by=()).columns[savings(experiment, (), resamples=0).notna().all()]


def test_bounds_are_averaged_and_counted(experiment):
    """Two sequences: one whose every smaller mask failed, one with a gap from 1 to 2 of 3 layers."""
    proven = [((0, 1, 2), 0.5), ((), 0), ((0,), 0.1), ((1,), 0.2), ((2,), 0.3), ((0, 2), 0.7)]
    tables = [frame(proven, "a"), frame([((0, 1, 2), 0.5), ((), 0.1), ((0, 1), 0.5)], "b")]
    sequences = pd.DataFrame({"sequence": ["a", "b"], "task": "t", "lang": ["de", "fr"]})
    small = replace(experiment, sequences=sequences, evaluations=pd.concat(tables), layers=3, metric="q")
    [row] = savings(small).query("counted == 'all'").to_dict("records")
    assert row["lower"] == pytest.approx((2 + 1) / 2 / 3)
    assert row["mean"] == pytest.approx(2 / 3)
    assert row["certified"] == 0.5
    # Equal values: a point.
    assert (row["mean_low"], row["mean_high"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert savings(small, by=("task", "lang"))["lang"].tolist() == ["de", "de", "fr", "fr"]
    with pytest.raises(InputError, match="colour") as caught:
        savings(small, by=("colour",))
    assert "\n" not in str(caught.value)


def test_savings_by_every_criterion_that_a_run_has_values_of(stored_run):
    table = savings_by_criterion(stored_run)
    assert table["criterion"].unique().tolist() == [
        name for name in METRICS if name in load(stored_run).evaluations.columns
    ]
    every = table[table["counted"] == "all"].set_index("criterion")
    assert len(every) >= 7
    for metric, row in every.iterrows():
        tolerance = 0.05 if metric == "rougeL" else 0.0
        assert row["tolerance"] == tolerance
        least = least_fractions(replace(load(stored_run), metric=metric), tolerance)
        assert row["mean"] == pytest.approx(np.mean([value for value, _, _ in least.values()]))
    chosen = savings_by_criterion(stored_run, ["chrf", "rougeL"], by=("task",))
    assert chosen[["criterion", "task"]].to_numpy().tolist() == [["chrf", "t"]] * 2 + [["rougeL", "t"]] * 2
