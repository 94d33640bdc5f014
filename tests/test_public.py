"""The public interface as a user's script sees it: one convention for runs, lists, and types."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analysis
import oracle
from oracle.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(search: Callable[..., oracle.Run]) -> oracle.Run:
    return search()


OF_RUN: dict[str, Callable[[Any], Any]] = {
    "summarise": lambda one: analysis.summarise(one, bootstrap=10, permutations=1).per_sequence_interval,
    "budgets": analysis.budgets,
    "by_sequence": analysis.by_sequence,
    "savings": lambda one: analysis.savings(one, resamples=10),
    "savings_by_criterion": lambda one: analysis.savings_by_criterion(one, ["rougeL"], resamples=10),
    "oracle_curve": analysis.oracle_curve,
    "oracle_allocations": analysis.oracle_allocations,
    "progress_curve": analysis.progress_curve,
    "metric_transfer": lambda one: analysis.metric_transfer(one, bootstrap=0),
    "luck_curve": lambda one: analysis.luck_curve(one, bootstrap=10, permutations=1),
    "load": lambda one: analysis.load(one).evaluations,
    "compare": lambda one: analysis.compare({"a": one, "b": one}, informative=False, resamples=10),
    "Run.open": lambda one: oracle.Run.open(one).evaluations(),
}


@pytest.mark.parametrize("name", OF_RUN)
def test_an_experiment_a_run_or_a_path_is_taken(name: str, run: oracle.Run) -> None:
    first, *others = (OF_RUN[name](one) for one in (run, run.folder, str(run.folder), analysis.load(run)))
    for other in others:
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, other)
        else:
            assert repr(first) == repr(other)


def test_a_search_starts_from_a_run(run: oracle.Run, search: Callable[..., oracle.Run]) -> None:
    found = [search(prior=one).manifest["continues"]["run"] for one in (run, str(run.folder))]
    assert found == [str(run.folder)] * 2
    assert oracle.resume_search(run).folder == run.folder


def test_an_experiment_of_no_run_names_the_need(run: oracle.Run) -> None:
    with pytest.raises(InputError, match="a stored run is required"):
        analysis.load(replace(analysis.load(run), folder=None))


SINGLE: dict[str, Callable[[Any], Any]] = {
    "tasks": lambda run: oracle.SearchConfig(tasks="facts"),  # type: ignore[arg-type]
    "metrics": lambda run: oracle.SearchConfig(metrics="contains"),  # type: ignore[arg-type]
    "stop": lambda run: oracle.SearchConfig(stop="x"),  # type: ignore[arg-type]
    "references": lambda run: oracle.Columns(references="a"),  # type: ignore[arg-type]
    "load_sequences": lambda run: oracle.load_sequences("instruct", tasks="facts"),  # type: ignore[arg-type]
    "reference_files": lambda run: oracle.load_sequences("a.txt", reference_files="b"),  # type: ignore[arg-type]
    "by": lambda run: analysis.savings(run, by="task"),
    "criteria": lambda run: analysis.savings_by_criterion(run, "rougeL"),
    "names": lambda run: analysis.draw_all([], "x", names="rarity"),
    "runs": lambda run: analysis.compare(str(run.folder)),
    "only": lambda run: analysis.load(run).only("s0"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_text_where_a_list_is_wanted_is_an_error(name: str, run: oracle.Run) -> None:
    with pytest.raises(InputError, match=r"must be a (list|tuple) of \w+, not the (single )?text .*: write"):
        SINGLE[name](run)


def test_one_run_where_several_are_wanted_is_an_error(run: oracle.Run) -> None:
    with pytest.raises(InputError, match="runs must be a list of runs, not a single one"):
        analysis.compare(run)  # type: ignore[arg-type]


SCRIPT = """
from pathlib import Path

import analysis
import oracle

config: oracle.SearchConfig = oracle.preset_config("gsm8k", limit=3)
run: oracle.Run = oracle.run_search(config, "runs/x")
read: analysis.Experiment = analysis.load(run)
for one in (run, read, "runs/x", Path("runs/x")):
    summary: analysis.Summary = analysis.summarise(one)
    print(summary.per_sequence_interval, analysis.savings(one, by=["task"]))
texts: list[str] = [sequence.prompt for sequence in oracle.load_sequences("instruct")]
reveal_type(oracle.__version__)
print(texts, run.summary()["equal_quality_fraction"])
config.limit = 3
analysis.load(3)
oracle.no_such_name
"""


def test_a_user_s_script_is_checked_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    packages = tmp_path / "site"
    packages.mkdir()
    for name in ("oracle", "analysis", "layer_oracle.py"):
        (packages / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--cache-dir", "cache", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert len(found) == 4, done.stdout + done.stderr
    assert found[0].startswith("note: Revealed type is") and "str" in found[0]
    assert "read-only" in found[1] and "incompatible type" in found[2] and "no attribute" in found[3]
