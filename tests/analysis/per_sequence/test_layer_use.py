"""Which layers are used: against loops, and how few allocations serve many: against all subsets."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from analysis import Experiment, budgets, serving_allocations
from analysis.experiment import InputError
from analysis.per_sequence.layer_use import co_occurrence_of, first_and_last_of

ALLOCATIONS = [(0, 1, 4), (0, 4), (), (1, 2, 3, 4), (2,)]
ZERO = [False, False, False, False, True]
TASKS = ["a", "b", "a", "b", "b"]


def minimal_table(allocations=ALLOCATIONS, zero=ZERO):
    return pd.DataFrame(
        {
            "sequence": [f"s{n}" for n in range(len(allocations))],
            "allocation": [np.array(one, dtype=np.int16) for one in allocations],
            "zero_quality": zero,
        }
    )


def test_pairs_are_counted_and_compared_with_chance():
    found = co_occurrence_of(minimal_table(), 6)
    counted = [set(one) for one, zero in zip(ALLOCATIONS, ZERO, strict=True) if not zero]
    assert found.sequences == 4
    for i in range(6):
        for j in range(6):
            together = np.mean([i in one and j in one for one in counted])
            assert found.together.loc[i, j] == together
            expected = np.mean([i in one for one in counted]) * np.mean([j in one for one in counted])
            assert found.lift.loc[i, j] == pytest.approx(together / expected if expected else np.nan, nan_ok=True)
    assert found.lift.loc[5].isna().all()


def test_large_allocations_alone_make_no_pair():
    """Layers that are drawn independently, more of them for some sequences: together often, but not for each other."""
    rng = np.random.default_rng(0)
    share = np.where(np.arange(4000) % 2, 0.25, 0.75)
    drawn = rng.random((4000, 24)) < share[:, None]
    table = minimal_table([np.flatnonzero(row) for row in drawn], [False] * 4000)
    found = co_occurrence_of(table, 24)
    off = ~np.eye(24, dtype=bool)
    assert found.lift.to_numpy()[off].mean() == pytest.approx((0.25**2 + 0.75**2) / 2 / 0.25, abs=0.02)
    assert found.lift_at_size.to_numpy()[off].mean() == pytest.approx(1, abs=0.03)


def test_layers_that_need_each_other_stand_out():
    rng = np.random.default_rng(1)
    drawn = rng.random((2000, 8)) < 0.5
    drawn[:, 5] = drawn[:, 2]
    found = co_occurrence_of(minimal_table([np.flatnonzero(row) for row in drawn], [False] * 2000), 8)
    assert found.lift.loc[2, 5] == pytest.approx(2, abs=0.1)
    assert found.lift_at_size.loc[2, 5] > 1.5
    assert found.lift_at_size.loc[0, 1] < 1.1


def test_nothing_counted_is_nothing_known():
    found = co_occurrence_of(minimal_table(zero=[True] * 5), 4)
    assert found.sequences == 0
    assert found.together.isna().all(axis=None)
    assert found.lift_at_size.isna().all(axis=None)


def test_first_and_last_layers():
    sequences = pd.DataFrame({"sequence": [f"s{n}" for n in range(5)], "task": TASKS})
    table = first_and_last_of(minimal_table(), sequences, 6).set_index(["task", "layer"])
    for task in ("a", "b", "all"):
        counted = [
            one for one, zero, own in zip(ALLOCATIONS, ZERO, TASKS, strict=True) if not zero and task in (own, "all")
        ]
        for layer in range(6):
            row = table.loc[task, layer]
            assert row["first"] == pytest.approx(np.mean([bool(one) and min(one) == layer for one in counted]))
            assert row["last"] == pytest.approx(np.mean([bool(one) and max(one) == layer for one in counted]))
            assert (row["sequences"], row["empty"]) == (len(counted), sum(not one for one in counted))
    assert [*dict.fromkeys(task for task, _ in table.index)] == ["a", "b", "all"]


def serving(serves_AN, costs=None):
    """A run in which allocation a, the single layer a, is as good as the full model where a table says so."""
    A, N = np.shape(serves_AN)
    rows = []
    for n in range(N):
        rows.append({"sequence": f"s{n}", "number": 0, "allocation": list(range(A)), "quality": 1.0})
        rows += [
            {"sequence": f"s{n}", "number": 1 + a, "allocation": [a], "quality": float(serves_AN[a][n])}
            for a in range(A)
        ]
    evaluations = pd.DataFrame(rows).assign(family="random")
    evaluations["cost"] = evaluations["allocation"].map(len)
    return Experiment(
        sequences=pd.DataFrame({"sequence": [f"s{n}" for n in range(N)], "task": ""}),
        evaluations=evaluations,
        layers=A,
        unit="layer",
        metric="quality",
        kind="text",
        tolerance=0.0,
        scope="decode",
        floor=0.0,
        seed=0,
    )


def fewest(serves_AN, wanted):
    """The smallest number of rows that cover a number of columns, by trying all."""
    A = len(serves_AN)
    for count in range(A + 1):
        if any(np.any(serves_AN[list(rows)], axis=0).sum() >= wanted for rows in combinations(range(A), count)):
            return count
    return None


@pytest.mark.parametrize("seed", range(6))
def test_the_fewest_allocations_that_serve(seed):
    rng = np.random.default_rng(seed)
    serves_AN = rng.random((9, 14)) < 0.25
    serves_AN[rng.integers(0, 9, 14), np.arange(14)] = True
    experiment = serving(serves_AN)
    table = serving_allocations(experiment, shares=(0.5, 0.9, 1.0))
    greedy = serving_allocations(experiment, shares=(0.5, 0.9, 1.0), exact=False)
    for wanted, exact, fast in zip(table["sequences"], table.itertuples(), greedy.itertuples(), strict=True):
        truth = fewest(serves_AN, wanted)
        assert (exact.allocations, exact.lower, exact.exact) == (truth, truth, True)
        assert fast.lower <= truth <= fast.allocations
        for row in (exact, fast):
            chosen = [allocation[0] for allocation in row.chosen]
            assert len(chosen) == row.allocations
            assert serves_AN[chosen].any(axis=0).sum() >= wanted
    assert table["sequences"].tolist() == [7, 13, 14]


def test_greed_is_not_always_best():
    serves_AN = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], dtype=bool)
    greedy, exact = (serving_allocations(serving(serves_AN), shares=(1.0,), exact=e).iloc[0] for e in (False, True))
    assert (greedy["allocations"], greedy["exact"]) == (3, False)
    assert (exact["allocations"], exact["chosen"]) == (2, [(1,), (2,)])


def test_what_costs_more_serves_only_with_slack(experiment):
    tight = serving_allocations(experiment)
    loose = serving_allocations(experiment, slack=5)
    assert (loose["allocations"] <= tight["allocations"]).all()
    assert loose["allocations"].sum() < tight["allocations"].sum()
    # Everybody is served by the full model at last.
    assert serving_allocations(experiment, slack=experiment.layers)["allocations"].tolist() == [1, 1]
    counted = (~budgets(experiment)["zero_quality"]).sum()
    assert (tight["of"] == counted).all()


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_shares_that_make_no_sense_are_refused(experiment, share):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        serving_allocations(experiment, shares=(share,))


def test_where_no_sequence_counts_no_allocation_serves():
    """All sequences are of zero quality: nothing is to be served, and nothing is divided by zero."""
    experiment = serving(np.zeros((3, 4), dtype=bool))
    experiment.evaluations["quality"] = 0.0
    table = serving_allocations(experiment)
    assert table["allocations"].tolist() == table["lower"].tolist() == [0, 0] and table["exact"].all()
