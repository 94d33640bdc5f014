"""Runs compared in pairs, against exact tests, plain statistics and the definitions."""

import statistics
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Experiment, InputError, compare
from analysis.comparison import holm, paired

LAYERS = 10


def run(fractions, qualities=None, fulls=None, names="abcdefghijklmnop"):
    """A run in which each sequence's minimal budget, its quality there and the full model's quality are given."""
    N = len(fractions)
    fulls = fulls or [0.5] * N
    qualities = qualities or fulls
    rows = []
    for name, fraction, quality, full in zip(names, fractions, qualities, fulls, strict=False):
        rows.append((name, 0, list(range(LAYERS)), LAYERS, full))
        rows.append((name, 1, list(range(round(fraction * LAYERS))), round(fraction * LAYERS), quality))
    columns = ["sequence", "number", "allocation", "cost", "q"]
    return Experiment(
        sequences=pd.DataFrame(
            {
                "sequence": list(names[:N]),
                "task": "t",
                "prompt": [f"prompt {name}" for name in names[:N]],
                "references": [["yes"]] * N,
                "choices": [[]] * N,
                "answer": [None] * N,
            }
        ),
        evaluations=pd.DataFrame(rows, columns=columns).assign(family="random"),
        layers=LAYERS,
        unit="layer",
        metric="q",
        kind="text",
        tolerance=0.0,
        scope="decode",
        floor=0.0,
        seed=3,
    )


FIRST = [0.1, 0.2, 0.2, 0.4, 0.5, 0.3, 0.9, 0.1]
SECOND = [0.2, 0.4, 0.5, 0.8, 0.0, 0.9, 0.2, 0.9]
"""Differences of different sizes, so that ranks have no ties: -1, -2, -3, -4, 5, -6, 7, -8 tenths."""


def exact_p(differences):
    """Of the two-sided signed-rank test: the share of all signs whose rank sum is as far from its mean."""
    rank = {size: i + 1 for i, size in enumerate(sorted(abs(d) for d in differences))}
    half = sum(rank.values()) / 2
    seen = abs(sum(rank[abs(d)] for d in differences if d > 0) - half)
    sums = [
        sum(r for r, sign in zip(rank.values(), signs, strict=True) if sign)
        for signs in product([0, 1], repeat=len(rank))
    ]
    return np.mean([abs(each - half) >= seen for each in sums])


def test_two_runs_against_exact_tests_and_plain_statistics():
    table = compare({"mine": run(FIRST), "theirs": run(SECOND)}).set_index("measure")
    assert table.index.tolist() == ["fraction", "quality", "full_quality"]
    row = table.loc["fraction"]
    differences = [round(a - b, 1) for a, b in zip(FIRST, SECOND, strict=True)]
    assert (row["first"], row["second"], row["sequences"]) == ("mine", "theirs", 8)
    assert row["mean_first"] == pytest.approx(statistics.mean(FIRST))
    assert row["mean_second"] == pytest.approx(statistics.mean(SECOND))
    assert row["difference"] == pytest.approx(statistics.mean(differences))
    assert row["low"] < row["difference"] < row["high"]
    assert row["cohen_d"] == pytest.approx(statistics.mean(differences) / statistics.stdev(differences))
    # Ranks 5 and 7 are of higher ones, of 36 in all.
    assert row["rank_biserial"] == pytest.approx((12 - 24) / 36)
    assert row["p"] == pytest.approx(exact_p(differences))
    assert row["p_holm"] == pytest.approx(row["p"]), "the other two measures are the same in both: nothing is tested"
    assert (row["lower"], row["equal"], row["higher"]) == (6, 0, 2)
    # The full models are one: nothing to test.
    same = table.loc["full_quality"]
    assert (same["p"], same["rank_biserial"], same["difference"], same["equal"]) == (1.0, 0.0, 0.0, 8)
    assert np.isnan(same["cohen_d"])


def test_the_interval_is_that_of_paired_differences():
    """Shifted by a constant the runs differ by just that, however much the sequences do."""
    shifted = [value - 0.1 for value in FIRST]
    row = compare([run(FIRST), run(shifted)]).set_index("measure").loc["fraction"]
    assert [row["low"], row["high"]] == pytest.approx([0.1, 0.1])
    assert row["rank_biserial"] == 1.0
    assert row["p"] < 0.01


def test_quality_is_compared_where_budgets_are_minimal():
    qualities = [0.5, 0.6, 0.7, 0.8]
    first = run([0.1, 0.2, 0.3, 0.4], qualities)
    second = run([0.1, 0.2, 0.3, 0.4], fulls=[0.3, 0.4, 0.0, 0.2])
    table = compare([first, second], informative=False).set_index("measure")
    assert table.loc["quality", "difference"] == pytest.approx(np.mean(qualities) - np.mean([0.3, 0.4, 0.0, 0.2]))
    assert table.loc["full_quality", "difference"] == pytest.approx(0.5 - 0.225)
    assert table["zero_quality"].tolist() == [1, 1, 1]
    told = compare([first, second]).set_index("measure")
    assert told["sequences"].tolist() == [3, 3, 3]
    assert told.loc["quality", "difference"] == pytest.approx(np.mean([0.5, 0.6, 0.8]) - 0.3)


def test_three_runs_make_three_pairs_and_nine_tests():
    fulls = [[0.3, 0.6, 0.2], [0.5, 0.4, 0.9], [0.7, 0.1, 0.8]]
    runs = [run(each, fulls=more + [0.5] * 5) for each, more in zip((FIRST, SECOND, FIRST[::-1]), fulls, strict=True)]
    table = compare(runs)
    assert table[["first", "second"]].drop_duplicates().to_numpy().tolist() == [
        ["run 1", "run 2"],
        ["run 1", "run 3"],
        ["run 2", "run 3"],
    ]
    assert len(table) == 9
    least = table["p"].min()
    assert table.loc[table["p"].idxmin(), "p_holm"] == pytest.approx(min(1.0, 9 * least))
    back = compare(runs[1::-1]).iloc[0]
    there = table.iloc[0]
    assert back[["difference", "rank_biserial", "cohen_d"]].tolist() == pytest.approx(
        (-there[["difference", "rank_biserial", "cohen_d"]]).tolist()
    )
    assert back["p"] == there["p"]


def test_runs_are_folders_too(stored_run):
    table = compare([stored_run, stored_run], criterion="chrf")
    assert table["first"].unique().tolist() == ["run (1)"]
    assert table["second"].unique().tolist() == ["run (2)"]
    assert (table["difference"] == 0).all()
    assert (table["p_holm"] == 1).all()


def test_only_shared_sequences_are_compared():
    pairs = paired(run(FIRST[:5]), run(SECOND[1:6], names="bcdefghijk"))
    assert pairs["sequence"].tolist() == ["b", "c", "d", "e"]
    assert pairs["fraction"].tolist() == pytest.approx(FIRST[1:5])
    assert pairs["fraction_against"].tolist() == pytest.approx(SECOND[1:5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_holm_rejects_what_its_steps_reject(p_values):
    """At any level: the smallest is tested at level / T, the next at level / (T - 1), until one is not rejected."""
    corrected = holm(np.array(p_values))
    for level in [0.01, 0.05, 0.2, *corrected[corrected < 1]]:
        order = sorted(range(len(p_values)), key=lambda i: p_values[i])
        rejected = set()
        for step, i in enumerate(order):
            if p_values[i] * (len(p_values) - step) > level:
                break
            rejected.add(i)
        assert rejected == set(np.flatnonzero(corrected <= level))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([run(FIRST)], "at least two runs"),
        ([run(FIRST), replace(run(FIRST), metric="cost")], "same criterion"),
        ([run(FIRST), replace(run(FIRST), tolerance=0.1)], "same tolerance"),
        ([run(FIRST), replace(run(FIRST), unit="sublayer")], "same unit"),
        ([run(FIRST), run(FIRST, names="stuvwxyz")], "none in common"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(runs, message):
    with pytest.raises(InputError, match=message) as caught:
        compare(runs)
    assert "\n" not in str(caught.value)


def test_another_prompt_under_the_same_name_is_refused():
    other = run(SECOND)
    other = replace(other, sequences=other.sequences.assign(prompt="something else"))
    with pytest.raises(InputError, match="'a' has another prompt"):
        compare([run(FIRST), other])
    zero = run(FIRST, fulls=[0.0] * 8)
    with pytest.raises(InputError, match="tells something in both runs"):
        compare([zero, zero])
