"""A run in a notebook: its sequences as a table, and what it looks like."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up import SCRIPT, write_run

import analysis
from oracle.errors import InputError
from oracle.store import Run


@pytest.fixture(scope="module")
def run(search: Callable[..., Run]) -> Run:
    return search()


def test_a_row_a_sequence_with_its_minimal_budget(run: Run) -> None:
    frame = run.to_frame()
    minimal = analysis.budgets(analysis.load(run.folder)).set_index("sequence")
    assert frame["sequence"].tolist() == run.sequences()["sequence"].tolist()
    assert frame["upper"].tolist() == minimal.loc[frame["sequence"], "upper"].tolist()
    assert np.allclose(frame["fraction"], frame["upper"] / run.units)
    evaluations = run.evaluations()
    for row in frame.itertuples():
        mine = evaluations[evaluations["sequence"] == row.sequence]
        assert row.full_output == mine.loc[mine["number"] == 0, "text"].item()
        [same] = mine.loc[mine["allocation"].map(tuple) == tuple(row.allocation), "text"].unique()
        assert row.output == same
        assert len(row.allocation) == row.upper


def test_a_search_that_did_not_end_has_no_frame(tmp_path: Path) -> None:
    unfinished = Run.open(write_run(tmp_path / "run", sequences=2, tries=2))
    with pytest.raises(InputError, match="its search did not end"):
        unfinished.to_frame()
    assert "has not ended" in unfinished._repr_html_()


def test_a_run_shows_itself_in_a_notebook(run: Run) -> None:
    shown, summary = run._repr_html_(), run.summary()
    assert summary["informative_sequences"] == 0, "a random model tells nothing"
    assert "of those, can tell something" in shown and "%" not in shown
    assert f"5 {run.unit}s" in shown


def test_a_summary_shows_itself_in_a_notebook(stored: Path) -> None:
    summary = analysis.summarise(analysis.load(stored), bootstrap=20, permutations=1)
    shown = summary._repr_html_()
    assert "equal_quality_fraction" in shown
    assert ("headline: can tell something" in shown) == (summary.informative is not None)
    assert "rougeL" in shown


def test_names_in_a_notebook_are_escaped(tmp_path: Path) -> None:
    shown = Run.open(write_run(tmp_path / "run", sequences=3, tries=2, hostile=True))._repr_html_()
    assert "&lt;img src=x" in shown
    assert SCRIPT not in shown
