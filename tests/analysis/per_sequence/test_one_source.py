"""Minimal budgets have one source: `oracle query`, `--sql`, `to_frame` and the export say the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import complete_run, random_outcomes, uneven_costs

import analysis
from oracle.export import export
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

SHARED = ["upper", "lower", "certified", "fraction", "quality", "full_quality", "zero_quality", "allocation", "family"]


@pytest.fixture(params=[(seed, priced) for seed in range(3) for priced in (False, True)], ids=str)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    seed, priced = request.param
    rng = np.random.default_rng(seed)
    tried = {f"s{n}": random_outcomes(rng, 30) for n in range(6)}
    return complete_run(tmp_path / "run", tried, tolerance=0.25, costs=uneven_costs() if priced else None)


def rows_of(rows: list[dict[str, Any]], names: list[str]) -> dict[str, list[Any]]:
    plain = [{key: getattr(value, "tolist", lambda v=value: v)() for key, value in row.items()} for row in rows]
    return {row["sequence"]: [row[name] for name in names] for row in plain}


def test_every_reader_has_the_same_minimal_budgets(run: Run, command: Command, tmp_path: Path) -> None:
    code, out, _ = command("query", run.folder, "--json")
    asked = json.loads(out)["sequences"]
    code, out, _ = command("query", run.folder, "--sql", "FROM minimal_budgets", "--json")
    selected = json.loads(out)["rows"]
    export(run, "jsonl", tmp_path / "out")
    exported = [json.loads(line) for line in (tmp_path / "out" / "sequences.jsonl").read_text().splitlines()]
    expected = rows_of(asked, SHARED)
    assert code == 0
    assert len(expected) == 6
    assert len({row["upper"] for row in asked}) > 1
    assert rows_of(selected, SHARED) == expected
    assert rows_of(run.to_frame().to_dict("records"), SHARED) == expected
    kept = [name for name in SHARED if name != "fraction"]
    assert rows_of(exported, kept) == rows_of(asked, kept)
    assert rows_of(analysis.budgets(analysis.load(run.folder)).to_dict("records"), kept) == rows_of(asked, kept)


def test_evaluations_cost_what_the_search_minimised(run: Run) -> None:
    """Files hold numbers of units; one function turns them into the run's cost, for pandas as for SQL."""
    found = run.query("SELECT cost FROM evaluations ORDER BY sequence, number")["cost"]
    assert run.evaluations()["cost"].tolist() == found.tolist()
    experiment = analysis.load(run.folder)
    kept = run.evaluations().query("not dropped")
    assert experiment.evaluations["cost"].tolist() == kept["cost"].tolist()
    layers = analysis.load(run.folder, costs="layers").evaluations
    assert layers["cost"].tolist() == layers["allocation"].map(len).tolist()
    assert (layers["cost"].tolist() == experiment.evaluations["cost"].tolist()) is (run.costs is None)
