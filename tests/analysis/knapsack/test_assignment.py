"""The oracle of a run as tables, against an integer programme over the run's rows."""

from dataclasses import replace

import numpy as np
import pytest
from knapsacks import integer_programme

from analysis import InputError, oracle_allocations, oracle_curve, summarise
from analysis.knapsack.items import quality_by_cost


@pytest.fixture(scope="module")
def best(experiment):
    items, _ = quality_by_cost(experiment.evaluations, 30, "rougeL")
    return lambda budget: integer_programme(items, cost=budget * 24 * 30) / 24


def test_the_curve_is_that_of_an_integer_programme(experiment, best):
    budgets = [0.05, 0.1234, 0.3, 0.6]
    curve = oracle_curve(experiment, budgets)
    assert curve["budget"].tolist() == budgets
    assert (curve["fraction"] <= curve["budget"] + 1e-9).all()
    assert (curve["gap"] == 0).all()
    assert curve["quality"].tolist() == pytest.approx([best(budget) for budget in budgets], abs=1e-7)


def test_by_default_there_is_a_budget_for_each_number_of_layers(experiment):
    curve = oracle_curve(experiment)
    np.testing.assert_allclose(curve["budget"], np.arange(31) / 30)
    assert (curve["quality"].diff().iloc[1:] >= -1e-12).all()
    most = experiment.evaluations.groupby("sequence")["rougeL"].max().mean()
    assert curve["quality"].iloc[-1] == pytest.approx(most)
    dearer = experiment.evaluations.query("cost >= 3 or number == 0")
    cut = oracle_curve(replace(experiment, evaluations=dearer))
    assert cut["budget"].iloc[0] == pytest.approx(0.1)


@pytest.mark.parametrize("budget", [None, 0.2])
def test_the_allocations_are_evaluations_that_add_up(experiment, best, budget):
    table = oracle_allocations(experiment, budget)
    assert table["sequence"].tolist() == experiment.sequences["sequence"].tolist()
    assert table["task"].tolist() == experiment.sequences["task"].tolist()
    rows = table.merge(experiment.evaluations, on=["sequence", "number"], suffixes=("", "_run"))
    assert (rows["quality"] == rows["rougeL"]).all()
    assert (rows["cost"] == rows["cost_run"]).all()
    assert (rows["fraction"] == rows["cost"] / 30).all()
    full = experiment.evaluations.query("number == 0").set_index("sequence")["rougeL"]
    assert (table["full_quality"].to_numpy() == full[table["sequence"]].to_numpy()).all()
    spent = summarise(experiment, bootstrap=0, permutations=0).equal_quality_fraction if budget is None else budget
    assert table["fraction"].mean() <= spent + 1e-9
    assert table["quality"].mean() == pytest.approx(best(spent), abs=1e-7)


def test_too_small_a_budget_is_refused(experiment):
    dearer = experiment.evaluations.query("cost >= 3 or number == 0")
    cut = replace(experiment, evaluations=dearer)
    for ask in (lambda: oracle_curve(cut, [0.05]), lambda: oracle_allocations(cut, 0.05)):
        with pytest.raises(InputError, match=r"at least 0\.1000"):
            ask()
