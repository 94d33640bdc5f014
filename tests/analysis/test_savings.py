"""Minimal budgets against a slow, plain reading of their definition."""

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import InputError, fractions, minimal_budgets
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
    return minimal_budgets(frame(rows), layers=layers, metric="q", tolerance=tolerance, floor=floor).iloc[0]


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
    found = minimal_budgets(table, layers=LAYERS, metric="q", tolerance=0.0)
    assert found["sequence"].tolist() == ["b", "a"]
    assert found["upper"].tolist() == [1, 2]
    assert found["full_quality"].tolist() == [0.5, 0.5]
    assert fractions(found, LAYERS).tolist() == [1 / 3, 2 / 3]


def test_fractions_can_leave_zero_quality_out():
    table = pd.concat([frame([((0, 1, 2), 0.0), ((), 0.0)], "a"), frame([((0, 1, 2), 0.5)], "b")])
    found = minimal_budgets(table, layers=LAYERS, metric="q", tolerance=0.0, floor=0.0)
    assert fractions(found, LAYERS).tolist() == [0.0, 1.0]
    assert fractions(found, LAYERS, nonzero=True).tolist() == [1.0]


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
    found = minimal_budgets(table, layers=LAYERS, metric="q", tolerance=0.0, **given_costs).iloc[0]
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
        minimal_budgets(table, layers=LAYERS, metric="q", tolerance=0.0)
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
    found = minimal_budgets(table, layers=layers, metric="q", tolerance=0.0)
    assert (found["lower"] == 5).all()
    assert (found["upper"] == layers).all()
