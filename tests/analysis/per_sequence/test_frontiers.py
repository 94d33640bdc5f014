"""One frontier: the analyses, the SQL view, the report, the export and the search's archive agree on random runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from random_runs import UNITS, complete_run, random_outcomes, uneven_costs

import analysis
from analysis.per_sequence.frontiers import frontiers
from analysis.queries import sequence_frontier
from analysis.report.rows import details
from oracle.export import export
from oracle.search import Archive, Space
from oracle.store import Run
from oracle.store.schema import outcomes_of

Points = dict[str, list[tuple[float, float, int]]]
"""By sequence cost, quality and number of each point."""


@pytest.fixture(params=[(seed, priced) for seed in range(6) for priced in (False, True)], ids=str)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    seed, priced = request.param
    rng = np.random.default_rng(seed)
    tried = {f"s{n}": random_outcomes(rng, 25) for n in range(5)}
    return complete_run(tmp_path / "run", tried, costs=uneven_costs() if priced else None)


def by_hand(run: Run) -> Points:
    points: Points = {}
    for name, rows in run.evaluations().query("not dropped").groupby("sequence"):
        best = -np.inf
        points[str(name)] = []
        for cost in sorted(set(rows["cost"])):
            level = rows[rows["cost"] == cost]
            top = level["exact_match"].max()
            if top > best:
                best = top
                points[str(name)].append((cost, top, int(level.loc[level["exact_match"] == top, "number"].min())))
    return points


def test_every_reader_has_the_same_frontier(run: Run, tmp_path: Path) -> None:
    expected = by_hand(run)
    assert max(map(len, expected.values())) > 1
    experiment = analysis.load(run.folder)
    found = experiment.evaluations.iloc[frontiers(experiment.evaluations, "exact_match")]
    view = run.query("FROM frontiers ORDER BY sequence, cost").rename(columns={"quality": "exact_match"})
    for table in (found, view):
        grouped = {str(name): rows for name, rows in table.groupby("sequence")}
        columns = ["cost", "exact_match", "number"]
        assert {name: [*rows[columns].itertuples(index=False, name=None)] for name, rows in grouped.items()} == expected
    texts = {name: [f"text {number}" for *_, number in points] for name, points in expected.items()}
    for name, (_, *opened) in zip(
        experiment.sequences["sequence"], details(experiment, analysis.summarise(experiment)), strict=True
    ):
        asked = sequence_frontier(run.folder, name)["frontier"]
        assert [(point["cost"], point["quality"]) for point in asked] == [one[:2] for one in expected[name]]
        assert [point["text"] for point in asked] == texts[name]
        shown = [(cost, quality, "text 0" if text is None else text) for cost, quality, _, _, text, _ in opened]
        assert shown == [
            (pytest.approx(cost), quality, text)
            for (cost, quality, _), text in zip(expected[name], texts[name], strict=True)
        ]
    export(run, "jsonl", tmp_path / "out")
    for line in (tmp_path / "out" / "sequences.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert [point["output"] for point in row["frontier"]] == texts[row["sequence"]]


@pytest.mark.parametrize("seed", range(6))
def test_the_archive_has_the_frontier_too(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    run = complete_run(tmp_path / "run", {f"s{n}": random_outcomes(rng, 25) for n in range(5)})
    for name, rows in run.evaluations().groupby("sequence"):
        archive = Archive(Space.of(UNITS, paths=True), "exact_match")
        archive.add([outcome for _, outcome in outcomes_of(rows)])
        points = [(one.cost, one.quality["exact_match"]) for one in archive.frontier()]
        assert points == [point[:2] for point in by_hand(run)[str(name)]]


def test_qualities_of_minus_infinity_count_at_the_lowest_cost_only() -> None:
    """A likelihood may be 0: its logarithm is a point where nothing is cheaper."""
    costs, qualities = [0, 1, 2], [-np.inf, -np.inf, -1.0]
    table = pd.DataFrame({"sequence": "s", "number": [2, 1, 0], "cost": costs, "quality": qualities})
    assert frontiers(table, "quality").tolist() == [0, 2]
