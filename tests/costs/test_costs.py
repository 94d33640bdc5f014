"""Costs as numbers: fractions, what a search sees of them, files that give back what was written, `oracle profile`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import LAYERS

from oracle.costs import Costs, costs_of_file, read_costs, write_costs
from oracle.errors import InputError
from oracle.search import Space

Command = Callable[..., tuple[int, str, str]]


def costs(**changes: object) -> Costs:
    settings = {
        "units": (10.0, 20.0, 30.0),
        "states": (1.0, 2.0, 3.0),
        "overhead": 40.0,
        "unit_of_measure": "ms/token",
        "unit": "layer",
        "context": 128,
        "batch": 1,
        "dtype": "float32",
        "device": "cpu, 2 threads",
        "model": "tiny",
        "fingerprint": "0123",
    }
    return Costs(**{**settings, **changes})


@pytest.mark.parametrize(
    ("allocation", "fraction", "propagated"),
    [((0, 1, 2), 1.0, 1.0), ((), 0.4, 0.46), ((1,), 0.6, 0.64), ((0, 2, 2), 1.1, 1.12)],
)
def test_fractions_include_what_every_allocation_pays(allocation, fraction, propagated) -> None:
    assert costs().fraction(allocation) == pytest.approx(fraction)
    assert costs().fraction(allocation, propagate=True) == pytest.approx(propagated)
    assert costs().of(allocation) == pytest.approx(100 * fraction)
    space = Space(units=3, free=(0, 1, 2), costs=costs().units)
    assert space.cost(allocation) + costs().overhead == costs().of(allocation)


def test_the_same_units_cost_the_same_to_the_last_bit() -> None:
    thirds = costs(units=(0.1, 1 / 3, 0.1, 1 / 3, 0.7), states=(0.0,) * 5, overhead=0.3)
    found = thirds.of_each([(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3), (), (0, 1, 2, 3, 4)])
    assert len(set(found[:3].tolist())) == 1
    assert found[-1] == thirds.total
    assert found[3:].tolist() == pytest.approx([0.3, 0.3 + 0.2 + 2 / 3 + 0.7])
    with pytest.raises(InputError, match=r"units 0 to 4 is required, not \(1, 5\)"):
        thirds.of_each([(0,), (1, 5)])


@pytest.mark.parametrize(
    ("units", "relative", "step"),
    [
        ((7e6, 7e6, 7e6), (1.0, 1.0, 1.0), 7e6),
        ((0.1, 0.1, 0.1), (1.0, 1.0, 1.0), 0.1),
        ((2.0, 6.0, 4.0), (0.5, 1.5, 1.0), 2.0),
        ((0.25, 1.5, 1.25), (0.25, 1.5, 1.25), None),
        ((0.0, 0.0, 0.0), None, None),
    ],
)
def test_a_search_sees_costs_in_mean_units(units, relative, step) -> None:
    some = costs(units=units)
    assert some.step == step
    if relative is None:
        with pytest.raises(InputError, match="needs units with costs above 0"):
            assert some.relative
    else:
        assert some.relative == relative
    measured = costs(units=(0.1, 1 / 3, 0.7)).relative
    assert sum(measured) == sum(reversed(measured)) == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("allocation", [(3,), (0, -1)])
def test_units_that_do_not_exist_cost_nothing_that_is_known(allocation) -> None:
    with pytest.raises(InputError, match="units 0 to 2 is required"):
        costs().fraction(allocation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": (), "states": ()}, "a value of every unit"),
        ({"states": (1.0,)}, "not 3 and 1"),
        ({"units": (1.0, -1.0, 1.0)}, "finite values of at least 0"),
        ({"overhead": float("nan")}, "finite values of at least 0"),
        ({"units": (0.0,), "states": (0.0,), "overhead": 0.0}, "not all 0"),
        ({"unit_of_measure": "layers"}, "FLOPs/token or ms/token, not 'layers'"),
        ({"unit": "head"}, "layer or sublayer, not 'head'"),
    ],
)
def test_costs_that_make_no_sense_are_refused(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        costs(**changes)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    measured, counts = costs(units=(0.1, 1 / 3, 2e-300)), costs(unit_of_measure="FLOPs/token", overhead=2.0**60)
    write_costs(tmp_path / "costs.json", [counts, measured], rounds=3)
    assert read_costs(tmp_path / "costs.json", "ms/token") == measured
    assert read_costs(tmp_path / "costs.json", "FLOPs/token") == counts
    assert read_costs(tmp_path / "costs.json") == measured
    for suffix, expected in (("", measured), (":ms", measured), (":flops", counts)):
        assert costs_of_file(f"{tmp_path / 'costs.json'}{suffix}") == expected
    write_costs(tmp_path / "costs.json", [counts])
    assert read_costs(tmp_path / "costs.json") == counts
    with pytest.raises(InputError, match="has costs in FLOPs/token, not in ms/token"):
        read_costs(tmp_path / "costs.json", "ms/token")
    with pytest.raises(InputError, match="cannot write costs"):
        write_costs(tmp_path / "nowhere" / "costs.json", [counts])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read costs .*No such file"),
        ("{", "cannot read costs"),
        ("[]", "no costs of schema 1"),
        ('{"schema": 2, "costs": []}', "no costs of schema 1"),
        ('{"schema": 1, "costs": [3]}', "has costs in nothing"),
        ('{"schema": 1, "costs": [{"unit_of_measure": "ms/token"}]}', "invalid costs .'units'"),
    ],
)
def test_files_that_hold_no_costs_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "costs.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_costs(tmp_path / "costs.json", "ms/token")


@pytest.mark.parametrize(("name", "value"), [("units", "abc"), ("overhead", "x"), ("color", 1), ("units", [None])])
def test_entries_that_are_no_costs_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match="invalid costs"):
        Costs.from_dict({**costs().to_dict(), name: value})


def test_a_profile_shows_and_writes_its_numbers(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    small = ["profile", "--model", tiny_folder, "--rounds", 3, "--context", 20, "--quiet"]
    file = tmp_path / "costs.json"
    code, out, err = command(*small, "--unit", "sublayer", "--out", file)
    assert (code, err) == (0, "")
    counts, measured = read_costs(file, "FLOPs/token"), read_costs(file, "ms/token")
    assert (counts.unit, counts.context, measured.batch, measured.dtype) == ("sublayer", 20, 1, "float32")
    details = json.loads(file.read_text())
    assert details["parts_to_whole"] == pytest.approx(measured.total / details["whole_ms"]["median"])
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    for name, first in (("attention of layers 0-4", 0), ("MLP of layers 0-4", 1)):
        assert lines[name][4:6] == ["5", f"{counts.units[first] / 1e6:.2f}"]
        assert f"{measured.units[first]:.3f}" in lines[name]
        assert f"{500 * counts.units[first] / counts.total:.1f}" in lines[name]
    assert f"add up to {details['parts_to_whole']:.2f} of a whole token" in out
    assert command(*small, "--out", file) == (
        2,
        "",
        f"oracle: error: '{file}' already exists; choose another --out or delete it\n",
    )


def test_a_profile_is_one_json_object(command: Command, tiny_folder: Path) -> None:
    code, out, err = command("profile", "--model", tiny_folder, "--rounds", 2, "--batch", 2, "--json", "--quiet")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    counts, measured = (Costs.from_dict(each) for each in answer["costs"])
    assert (measured.unit_of_measure, measured.batch, len(measured.units)) == ("ms/token", 2, LAYERS)
    assert answer["groups"][0]["units"] == list(range(LAYERS))
    assert answer["groups"][0]["flops"] == counts.units[0]
    assert counts.fingerprint == measured.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unit", "head"], "--unit needs one of layer, sublayer, not 'head'"),
        (["--batch", 0], "--batch needs at least 1, not 0"),
        (["--rounds", -1], "--rounds needs at least 1, not -1"),
        (["--context", 257], "--context needs at most the model's 256 tokens, not 257"),
        (["--out", "nowhere/costs.json"], "'nowhere' is not one; create it first"),
        (["--out", "x" * 300], "cannot write to"),
    ],
)
def test_a_profile_refuses_in_one_line(command: Command, tiny_folder: Path, arguments, message) -> None:
    code, out, err = command("profile", "--model", tiny_folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("oracle: error: ") and message in err
