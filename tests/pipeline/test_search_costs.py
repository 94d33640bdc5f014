"""Searches that minimise FLOPs, time or what a file says, and runs read by other costs than their own."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import LAYERS

import analysis
from oracle.config import SearchConfig
from oracle.costs import Conditions, Costs, read_costs, write_costs
from oracle.costs.flops import count_flops
from oracle.costs.resolve import search_costs
from oracle.errors import InputError
from oracle.models import load_model
from oracle.pipeline.run import resume_search
from oracle.store import Run

GOAL = {"criterion": "agreement", "tolerance": 0.67}
"""Of six random tokens two: some layers do."""

UNEVEN = tuple(1.0 + 0.5 * layer + 1 / 3 for layer in range(LAYERS))


@pytest.fixture(scope="module")
def model(tiny_folder: Path):
    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def uneven(model) -> Costs:
    """Times that no two layers share."""
    flops = count_flops(model, Conditions(context=20))
    return replace(flops, units=UNEVEN, states=(0.0,) * LAYERS, overhead=2.0, unit_of_measure="ms/token")


@pytest.fixture(scope="module")
def file(uneven: Costs, model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both costs, as `oracle profile --out` writes them."""
    path = tmp_path_factory.mktemp("costs") / "costs.json"
    write_costs(path, [count_flops(model, Conditions(context=20)), uneven])
    return path


@pytest.fixture(scope="module")
def by_layers(search) -> Run:
    return search(**GOAL, strategy="auto", evaluations=32)


@pytest.fixture(scope="module")
def by_file(search, file: Path) -> Run:
    return search(**GOAL, strategy="auto", evaluations=32, cost=str(file))


@pytest.fixture(scope="module")
def whole_truth(search) -> Run:
    """Every mask of the tiny model, searched by layers."""
    return search(**GOAL, strategy="exhaustive", evaluations=32)


def test_nothing_costs_anything_but_layers_by_default(by_layers: Run, model) -> None:
    assert search_costs(SearchConfig(), model, [20]) is None
    assert (by_layers.costs, by_layers.measure) == (None, "layers")
    assert "costs" not in by_layers.manifest
    assert by_layers.summary()["cost"] == "layers"


@pytest.mark.parametrize(("lengths", "context"), [([10, 20], 19), ([250, 254], 256)])
def test_flops_are_those_halfway_through_an_output(model, lengths, context) -> None:
    config = SearchConfig(cost="flops", max_new_tokens=8)
    assert search_costs(config, model, lengths) == count_flops(model, Conditions(context=context))


def test_times_are_measured_once_and_hold_when_a_run_goes_on(model) -> None:
    config = SearchConfig(cost="latency", unit="sublayer", max_new_tokens=8)
    costs = search_costs(config, model, [10])
    assert (costs.unit_of_measure, costs.unit, costs.context, len(costs.units)) == (
        "ms/token",
        "sublayer",
        14,
        2 * LAYERS,
    )
    assert search_costs(config, model, [10], expected={"costs": costs.to_dict()}) == costs


def test_a_file_is_read_by_time_unless_flops_are_named(model, file: Path, uneven: Costs) -> None:
    flops = read_costs(file, "FLOPs/token")
    for name, expected in (("", uneven), (":ms", uneven), (":flops", flops)):
        assert search_costs(SearchConfig(cost=f"{file}{name}"), model, [10]) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "0123"}, "fingerprint 0123, but [0-9a-f]+ is required"),
        ({"dtype": "bfloat16"}, "dtype bfloat16, but float32 is required"),
        ({"unit": "sublayer"}, "unit sublayer, but layer is required"),
    ],
)
def test_costs_of_something_else_are_refused(model, uneven: Costs, by_layers: Run, tmp_path, changes, message) -> None:
    write_costs(tmp_path / "costs.json", [replace(uneven, **changes)])
    for read in (
        lambda name: search_costs(SearchConfig(cost=name), model, [10]),
        lambda name: analysis.load(by_layers.folder, costs=name),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read(str(tmp_path / "costs.json"))
        assert "\n" not in str(caught.value)


def test_no_file_no_costs(command, tiny_folder: Path, tmp_path: Path) -> None:
    code, out, err = command(
        "search", "--model", tiny_folder, "--cost", "flop", "--limit", 1, "--out", tmp_path / "run"
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("oracle: error: --cost needs layers, flops, latency or a file of costs")
    assert not (tmp_path / "run").exists()


def test_equal_costs_are_searched_as_layers_are(search, by_layers: Run) -> None:
    """In a uniform model each layer has the same FLOPs, and every token pays for the head."""
    run = search(**GOAL, strategy="auto", evaluations=32, cost="flops")
    mine, theirs = run.evaluations(), by_layers.evaluations()
    assert mine.drop(columns="cost").equals(theirs.drop(columns="cost"))
    flops = Costs.from_dict(run.costs)
    assert mine["cost"].tolist() == [flops.of(tuple(one.tolist())) for one in mine["allocation"]]
    costs, minimal = Costs.from_dict(run.costs), run.table("minimal_budgets")
    layers = by_layers.table("minimal_budgets")
    assert minimal["upper"].tolist() == [costs.overhead + costs.units[0] * count for count in layers["upper"]]
    assert minimal["lower"].tolist() == [costs.overhead + costs.units[0] * count for count in layers["lower"]]
    assert minimal["proof"].tolist() == layers["proof"].tolist()
    assert minimal["certified"].all()
    summary = run.summary()
    assert (summary["cost"], summary["exact"]) == ("FLOPs/token", True)
    share = costs.total - costs.overhead
    expected = (costs.overhead + share * by_layers.summary()["per_sequence_fraction"]) / costs.total
    assert summary["per_sequence_fraction"] == pytest.approx(expected)


def test_the_cheapest_mask_of_all_is_found(by_file: Run, whole_truth: Run, uneven: Costs) -> None:
    evaluations, minimal = by_file.evaluations(), by_file.table("minimal_budgets").set_index("sequence")
    assert Costs.from_dict(by_file.costs) == uneven
    assert evaluations["cost"].tolist() == [uneven.of(tuple(one.tolist())) for one in evaluations["allocation"]]
    assert len(evaluations) < 6 * 2**LAYERS
    for name, mine in whole_truth.evaluations().groupby("sequence"):
        good = mine.loc[mine["agreement"] >= 1 - 0.67, "allocation"]
        assert minimal.loc[name, "upper"] == min(uneven.of_each(good))
    assert minimal["upper"].nunique() > 2
    assert minimal["lower"].between(uneven.overhead, minimal["upper"]).all()
    summary = by_file.summary()
    assert summary["per_sequence_fraction"] == pytest.approx(minimal["upper"].mean() / uneven.total)
    assert summary["end_to_end_fraction"] is None


def test_a_run_is_read_by_other_costs_without_a_new_search(whole_truth: Run, by_file: Run, file: Path, uneven) -> None:
    other = analysis.load(whole_truth.folder, costs=str(file))
    assert (other.measure, other.full_cost, other.costs) == ("ms/token", uneven.total, uneven)
    assert other.provenance["read_by"]["costs"]["unit_of_measure"] == "ms/token"
    assert analysis.budgets(other)["upper"].tolist() == by_file.table("minimal_budgets")["upper"].tolist()
    assert analysis.budgets(other)["certified"].all()
    back = analysis.load(by_file.folder, costs="layers")
    assert (back.measure, back.full_cost) == ("layers", LAYERS)
    assert back.provenance["read_by"].keys() == {"criterion", "tolerance"}
    least = analysis.budgets(analysis.load(whole_truth.folder))["upper"]
    assert (analysis.budgets(back)["upper"] >= least).all()


def test_a_run_goes_on_with_the_costs_that_it_began_with(search, uneven: Costs, tmp_path) -> None:
    write_costs(tmp_path / "costs.json", [uneven])
    run = search(cost=str(tmp_path / "costs.json"), out=tmp_path / "run")
    summary = run.summary()
    (tmp_path / "costs.json").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    again = resume_search(tmp_path / "run").summary()
    assert again["cost"] == "ms/token"
    assert again["per_sequence_fraction"] == summary["per_sequence_fraction"]
