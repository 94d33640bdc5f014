"""Every command reads the evaluations of a run once."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_up import write_extras, write_run
from random_runs import complete_run, random_outcomes

from oracle.store import Run
from oracle.store.run import EVALUATIONS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Number of times that the parts of each run's evaluations were opened, as tables or as a data set for SQL."""
    found: Counter[str] = Counter()
    parts, scan = Run.parts, Run._scan

    def counted_parts(run, name, schema):
        found[run.folder.name] += name == EVALUATIONS
        return parts(run, name, schema)

    def counted_scan(run):
        found[run.folder.name] += 1
        return scan(run)

    monkeypatch.setattr(Run, "parts", counted_parts)
    monkeypatch.setattr(Run, "_scan", counted_scan)
    yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    for name in ("one", "two"):
        complete_run(folder / name, {f"s{n}": random_outcomes(rng, 12) for n in range(4)})
    return folder / "one", folder / "two"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--sequence", "s1"),
        ("--at-most", "0.5"),
        ("--by-task",),
        ("--allocations", "3"),
        ("--budget", "0.9"),
    ],
)
def test_a_query_reads_once(runs: tuple[Path, Path], command: Command, reads: Counter[str], options) -> None:
    code, _, err = command("query", runs[0], *options)
    assert (code, err) == (0, "")
    assert reads == {"one": 1}


def test_sql_reads_once(runs: tuple[Path, Path], reads: Counter[str]) -> None:
    # The command runs it in another process, by the same function.
    Run.open(runs[0]).query("SELECT count(*) FROM evaluations JOIN frontiers USING (sequence)")
    assert reads == {"one": 1}


def test_two_runs_are_read_once_each(runs: tuple[Path, Path], command: Command, reads: Counter[str]) -> None:
    code, _, err = command("query", runs[0], "--against", runs[1])
    assert (code, err) == (0, "")
    assert reads == {"one": 1, "two": 1}


@pytest.mark.parametrize("form", ["hf", "drllm", "jsonl"])
def test_an_export_reads_tables_once_and_scans_once(
    runs: tuple[Path, Path], command: Command, reads: Counter[str], tmp_path: Path, form: str
) -> None:
    code, _, err = command("export", runs[0], "--format", form, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    # The frontiers are a view of the SQL, which reads the files itself.
    assert reads == {"one": 1 if form == "drllm" else 2}


@pytest.mark.parametrize("name", ["report", "figures"])
def test_pages_and_figures_read_once(command: Command, reads: Counter[str], tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "made-up", sequences=4, tries=6)
    write_extras(run)
    reads.clear()
    code, _, err = command(name, run, "--quiet")
    assert code == 0, err
    assert reads == {"made-up": 1}
