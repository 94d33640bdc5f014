"""The summary against numbers worked out by hand or by another way."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import (
    InputError,
    end_to_end_fraction,
    informative,
    luck_curve,
    oracle_allocations,
    policy_curves,
    summarise,
)
from analysis.formatting import percent
from analysis.per_sequence.layer_use import layer_use_of
from analysis.per_sequence.policies import policy_curves_of
from analysis.queries import budget_rows
from oracle.cli.run_tables import show_summary
from oracle.costs import Costs


@pytest.fixture(scope="module")
def summary(experiment):
    return summarise(experiment, bootstrap=300, permutations=3)


def test_numbers_agree_with_the_tables(experiment, summary):
    minimal = summary.minimal
    assert summary.sequences == len(minimal) == 24
    assert (summary.allocations_per_sequence, summary.layers, summary.criterion) == (120, 30, "rougeL")
    assert isinstance(summary.allocations_per_sequence, int)
    full = experiment.evaluations.query("number == 0")["rougeL"]
    assert summary.full_quality == pytest.approx(full.mean())
    assert summary.per_sequence_fraction == pytest.approx(minimal["upper"].mean() / 30)
    assert summary.zero_quality_sequences == (full == 0).sum() == 3
    nonzero = minimal.loc[minimal["full_quality"] > 0, "upper"].mean() / 30
    assert (summary.informative_sequences, summary.vacuous_sequences) == (21, 0)
    assert summary.headline is summary.informative
    assert summary.informative.per_sequence_fraction == pytest.approx(nonzero)
    assert summary.informative.headline is summary.informative
    assert summary.certified == minimal["certified"].sum()
    gap = (minimal["upper"] - minimal["lower"])[minimal["upper"] > minimal["lower"]].mean()
    assert summary.mean_gap == pytest.approx(gap)
    low, high = summary.per_sequence_interval
    assert low < summary.per_sequence_fraction < high
    low, high = summary.equal_quality_interval
    assert low < summary.equal_quality_fraction < high


def test_the_headline_is_the_summary_of_the_informative_sequences(experiment, summary):
    told = informative(experiment)
    assert len(told.sequences) == 21 and told.folder == experiment.folder
    assert summarise(told, bootstrap=300, permutations=3) == summary.headline
    assert informative(told) is told
    over_all = f"over all 24 sequences {percent(summary.per_sequence_fraction)}"
    headline = f"21 can tell something: {percent(summary.headline.per_sequence_fraction)}"
    assert repr(summary).startswith(f"Summary({headline} of the cost per sequence, ") and over_all in repr(summary)
    assert repr(summary.headline).startswith("Summary(over all 21 sequences ")
    assert summary._repr_html_().index("headline") < summary._repr_html_().index("all sequences")


def test_without_informative_sequences_there_is_no_headline(experiment):
    wrong = experiment.only(f"s{n:03d}" for n in range(24) if n % 8 == 5)
    with pytest.raises(InputError, match="no sequence can tell something: on 3 the full model scores zero"):
        informative(wrong)
    assert repr(summarise(wrong, bootstrap=0, permutations=0)).startswith(
        "Summary(no sequence can tell something; over"
    )


def test_the_assignment_is_what_was_evaluated_and_reaches_the_full_model(experiment, summary):
    chosen = summary.assignment.merge(experiment.evaluations, on=["sequence", "number"], suffixes=("", "_run"))
    assert len(chosen) == 24
    assert (chosen["cost"] == chosen["cost_run"]).all()
    assert (chosen["quality"] == chosen["rougeL"]).all()
    assert chosen["allocation"].map(len).tolist() == chosen["cost"].tolist()
    assert chosen["cost"].sum() / (24 * 30) == pytest.approx(summary.equal_quality_fraction)
    assert chosen["quality"].mean() >= summary.full_quality - 1e-9


def test_the_data_set_oracle_needs_no_more_than_the_sequences_do(summary):
    assert summary.equal_quality_fraction <= summary.per_sequence_fraction


def test_to_dict_is_plain_json_and_holds_every_number(summary):
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["equal_quality_interval"] == list(summary.equal_quality_interval)
    assert {"minimal", "assignment", "oracle", "null"}.isdisjoint(values)
    assert len(values) == 27
    assert values["equal_quality_gap"] == 0.0


def test_it_is_the_same_twice(experiment, summary):
    again = summarise(experiment, bootstrap=300, permutations=3)
    assert again == summary
    pd.testing.assert_frame_equal(again.assignment, summary.assignment)


def test_means_of_unequal_counts_and_repeats_of_an_allocation(experiment):
    evaluations = experiment.evaluations.query("sequence in ('s000', 's001') and number < 10")
    repeated = evaluations.query("sequence == 's000'").assign(number=lambda table: table["number"] + 100)
    less = evaluations.query("sequence != 's001' or number < 9")
    part = replace(
        experiment,
        sequences=experiment.sequences.iloc[:2],
        evaluations=pd.concat([less, repeated], ignore_index=True),
    )
    assert summarise(part, bootstrap=0, permutations=0).allocations_per_sequence == 9.5


def test_all_zero_quality_has_no_headline(experiment):
    zeros = replace(experiment, evaluations=experiment.evaluations.assign(rougeL=0.0))
    summary = summarise(zeros, bootstrap=20, permutations=0)
    assert summary.headline is None and summary.informative_sequences == 0
    assert summary.per_sequence_fraction == summary.equal_quality_fraction == 0.0
    assert summary.zero_quality_sequences == summary.certified == 24
    assert summary.mean_gap is None


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        # a: 5 prompt tokens, 3 generated, 1 of 4 layers; b: 2 prompt tokens, none generated, 3 of 4 layers
        ("decode", (5 * 4 + 2 * 1 + 2 * 4) / ((7 + 2) * 4)),
        ("sequence", (7 * 1 + 2 * 3) / ((7 + 2) * 4)),
    ],
)
def test_end_to_end_fraction_by_hand(experiment, scope, expected):
    small = replace(
        experiment,
        layers=4,
        scope=scope,
        sequences=pd.DataFrame({"sequence": ["b", "a"], "prompt_tokens": [2, 5]}),
        evaluations=pd.DataFrame(
            {"sequence": ["a", "a", "b"], "number": [0, 1, 0], "tokens": [[1, 2, 3, 4], np.array([1, 2, 3]), []]}
        ),
    )
    chosen = pd.DataFrame({"sequence": ["a", "b"], "number": [1, 0], "cost": [1, 3]})
    assert end_to_end_fraction(small, chosen) == pytest.approx(expected)


def priced(experiment, **changes):
    """The same run by FLOPs that differ between even and odd layers."""
    settings = {
        "units": (1e6, 1.7e6) * (experiment.layers // 2),
        "states": (0.0,) * experiment.layers,
        "overhead": 5e6,
        "unit_of_measure": "FLOPs/token",
        "unit": "layer",
        "context": 64,
        "batch": 1,
        "dtype": "float32",
        "device": "cpu",
        "model": "synthetic",
        "fingerprint": "f00d",
    }
    costs = Costs(**{**settings, **changes})
    cost = costs.of_each(experiment.evaluations["allocation"])
    return replace(experiment, costs=costs, evaluations=experiment.evaluations.assign(cost=cost))


def test_end_to_end_flops_pay_for_the_head_once_a_token(experiment):
    small = replace(
        experiment,
        layers=2,
        sequences=pd.DataFrame({"sequence": ["a"], "prompt_tokens": [10]}),
        evaluations=pd.DataFrame({"sequence": ["a"], "number": [1], "tokens": [[1, 2, 3]], "allocation": [[0]]}),
    )
    flops = priced(small)
    chosen = flops.evaluations[["sequence", "number", "cost"]]
    prompt, full = 10 * 2.7 + 5, 7.7
    assert end_to_end_fraction(flops, chosen) == pytest.approx((prompt + 2 * 6.0) / (prompt + 2 * full))
    everywhere = replace(flops, scope="sequence")
    assert end_to_end_fraction(everywhere, chosen) == pytest.approx((10 * 1.0 + 5 + 2 * 6.0) / (prompt + 2 * full))
    assert end_to_end_fraction(priced(small, unit_of_measure="ms/token"), chosen) is None


def test_a_summary_by_flops_is_in_flops(experiment, summary):
    flops = priced(experiment)
    found = summarise(flops, bootstrap=300, permutations=3)
    assert (found.cost, summary.cost, found.exact) == ("FLOPs/token", "layers", True)
    least = 5e6 / flops.full_cost
    assert least < found.equal_quality_fraction <= found.per_sequence_fraction < 1
    assert found.minimal["upper"].between(5e6, flops.full_cost).all()
    assert found.assignment["cost"].mean() / flops.full_cost == pytest.approx(found.equal_quality_fraction)
    assert found.assignment["quality"].mean() >= found.full_quality - 1e-9
    low, high = found.equal_quality_interval
    assert low < found.equal_quality_fraction < high
    # The curve ends where the summary does, and the frontier is no further off than it says.
    last = luck_curve(flops, bootstrap=0, permutations=0).iloc[-1]
    assert last["equal_quality"] == pytest.approx(found.equal_quality_fraction, abs=1e-12)
    there = np.array([found.equal_quality_fraction + found.oracle.frontier.shift])
    assert found.oracle.frontier.quality_at(there) >= found.oracle.quality - 1e-9


def test_policies_are_drawn_at_their_mean_cost(experiment):
    flops = priced(experiment)
    curves = policy_curves(flops)
    layers = policy_curves(experiment)
    assert sorted(curves["quality"]) == sorted(layers["quality"])
    assert curves["fraction"].between(5e6 / flops.full_cost, 1.0).all()


def test_policy_curves_average_within_sequences_first_and_need_all_of_them():
    rows = [
        ("a", 0, "full", 2, 0.8),
        ("a", 1, "random", 1, 0.2),
        ("a", 2, "random", 1, 0.4),
        ("a", 3, "unified", 1, 0.5),
        ("a", 4, "random", 0, 0.1),
        ("b", 0, "full", 2, 0.4),
        ("b", 1, "random", 1, 0.9),
        ("b", 2, "unified", 1, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["sequence", "number", "family", "cost", "q"])
    table["allocation"] = [tuple(range(cost)) for cost in table["cost"]]
    curves = policy_curves_of(table, full_cost=2, metric="q")
    assert curves["family"].tolist() == ["random", "random", "unified", "unified"]
    assert curves["fraction"].tolist() == [0.5, 1.0, 0.5, 1.0]
    assert curves["quality"].tolist() == pytest.approx([0.6, 0.6, 0.3, 0.6])


def test_layer_use_leaves_zero_quality_out_and_counts_repeats_once():
    minimal = pd.DataFrame(
        {
            "sequence": ["a", "b", "c", "d"],
            "allocation": [[0, 2], np.array([2, 2]), [], [0, 1, 2]],
            "zero_quality": [False, False, False, True],
        }
    )
    sequences = pd.DataFrame({"sequence": ["a", "b", "c", "d"], "task": ["x", "x", "y", "z"]})
    table = layer_use_of(minimal, sequences, 3)
    assert table.index.tolist() == ["x", "y", "z", "all"]
    assert table["n"].tolist() == [2, 1, 0, 3]
    assert table.loc["x", [0, 1, 2]].tolist() == [0.5, 0.0, 1.0]
    assert table.loc["y", [0, 1, 2]].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["z", [0, 1, 2]].isna().all()
    assert table.loc["all", [0, 1, 2]].tolist() == pytest.approx([1 / 3, 0, 2 / 3])
    assert layer_use_of(minimal, sequences.assign(task=""), 3).index.tolist() == ["all"]


def test_the_terminal_states_both_headlines(experiment, summary, capsys):
    times = dict.fromkeys(("search_seconds", "seconds", "peak_memory_mib", "memory_above_model_mib"), 1)
    stored = {**summary.to_dict(), **times, "verified": 3, "verified_of": 3, "unverified": []}
    show_summary(json.loads(json.dumps(stored)), budget_rows(experiment, summary.minimal))
    text = capsys.readouterr().out
    first, second = text.index("over 21 sequences that can tell something"), text.index("over all 24 sequences")
    told, every = (f"{100 * one.per_sequence_fraction:.1f} %" for one in (summary.informative, summary))
    assert told in text[first:second] and every in text[second:] and told != every
    assert "3 of 24 sequences can tell nothing: on 3 the full model scores zero" in " ".join(text.split())
    assert f"{summary.informative.certified} of the 21 that can tell something proven minimal" in " ".join(text.split())


def test_of_many_sequences_the_headline_alone_has_intervals(experiment, monkeypatch):
    monkeypatch.setattr("analysis.summary.LARGE", 20)
    summary = summarise(experiment, bootstrap=50, permutations=2)
    assert summary.per_sequence_interval is None and summary.null is None
    assert summary.informative == summarise(experiment, bootstrap=50, permutations=2).informative
    assert summary.informative.per_sequence_interval is not None and summary.informative.null is not None
    monkeypatch.setattr("analysis.summary.LARGE", 24)
    assert summarise(experiment, bootstrap=50, permutations=2).null is not None


@pytest.mark.parametrize("kind", ["likelihood", "choice", "continuations"])
def test_where_given_texts_are_scored_there_is_no_end_to_end_fraction(experiment, kind):
    chosen = experiment.evaluations[experiment.evaluations["number"] == 0][["sequence", "number", "cost"]]
    assert end_to_end_fraction(experiment, chosen) == 1
    assert end_to_end_fraction(replace(experiment, kind=kind), chosen) is None


@pytest.mark.parametrize("budget", [float("nan"), 50, -0.1, "0.5"])
def test_the_oracle_needs_a_fraction(experiment, budget):
    with pytest.raises(InputError, match="budget needs a fraction of the full model's cost from 0 to 1, not "):
        oracle_allocations(experiment, budget)
