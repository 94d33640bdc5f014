"""`oracle check`: whole runs are, edited ones are not, even where digests were renewed."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oracle.metrics import functions
from oracle.store import Run
from oracle.store.files import write_part, write_table
from oracle.store.index import index_all
from oracle.utils import consent

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(search: Callable[..., Run]) -> Run:
    return search(evaluations=6)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def rewritten(path: Path, column: str, change: Callable[[list], list]) -> None:
    """Writes a table with another column, signed as a program would."""
    table = pq.read_table(path)
    values = pa.array(change(table.column(column).to_pylist()), table.schema.field(column).type)
    table = table.set_column(table.column_names.index(column), column, values)
    if path.name.startswith("part-"):
        path.unlink()
        write_part(path.with_name(path.name.rpartition("-")[0]), table)
    else:
        write_table(path, table)


def test_a_whole_run_is_whole(run: Path, command: Command) -> None:
    assert command("report", run)[0] == 0
    code, out, error = command("check", run, "--recompute", 20, "--quiet")
    assert (code, error) == (0, "")
    assert "20 of 20 recomputed outcomes are equal." in out and "whole and consistent" in out
    assert "files by layer-oracle" in out
    code, out, _ = command("check", run, "--json")
    assert json.loads(out)["whole"] and json.loads(out)["writers"][0]["commit"] == Run.open(run).manifest["commit"]


def test_a_search_that_has_not_ended_is_said_to_be_one(run: Path, command: Command) -> None:
    (run / "summary.json").unlink()
    code, out, _ = command("check", run)
    assert (code, "summary.json' is missing" in out, "has not ended" in out) == (1, True, True)


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "budget": (
        lambda run: rewritten(run / "minimal_budgets.parquet", "upper", lambda old: [1] * len(old)),
        "minimal_budgets.parquet: upper of 's0': found 1",
    ),
    "choice": (
        lambda run: rewritten(run / "assignment.parquet", "number", lambda old: [99] * len(old)),
        "assignment.parquet: no such evaluation of 6 rows",
    ),
    "prompt": (
        lambda run: rewritten(run / "sequences.parquet", "prompt", lambda old: ["other"] * len(old)),
        "manifest.json: data.hash: found",
    ),
    "cost": (
        lambda run: [rewritten(each, "cost", lambda old: [0] * len(old)) for each in run.glob("evaluations/*.parquet")],
        "evaluations: cost differs from the length of the allocation",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_inconsistent_results_are_found_though_their_digests_were_renewed(
    run: Path, edit: str, command: Command
) -> None:
    change, message = EDITS[edit]
    change(run)
    index_all(run)
    code, out, error = command("check", run)
    assert (code, error) == (1, "")
    assert message in out


def test_foreign_files_and_links_are_named(run: Path, command: Command, tmp_path: Path) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "measures").mkdir()
    shutil.copy(run / "sequences.parquet", run / "measures" / "features.parquet")
    (run / "assignment.parquet").rename(tmp_path / "away.parquet")
    (run / "assignment.parquet").symlink_to(tmp_path / "away.parquet")
    code, out, _ = command("check", run)
    assert code == 1
    assert "note: " in out and "notes.txt' is not one of the run's files" in out
    assert "features.parquet' is not listed in index.json" in out
    assert "assignment.parquet' is a link" in out


def test_outputs_that_were_edited_are_found_by_computing_them_again(run: Path, command: Command) -> None:
    for path in run.glob("evaluations/*.parquet"):
        rewritten(path, "tokens", lambda old: [[1, *tokens[1:]] for tokens in old])
    index_all(run)
    assert command("check", run)[0] == 0
    code, out, _ = command("check", run, "--recompute", 3, "--quiet")
    assert (code, "0 of 3 recomputed outcomes are equal." in out) == (1, True)
    assert out.count("another output by plain generation") == 3


def test_files_are_accepted_as_they_are_on_request(run: Path, command: Command) -> None:
    path = run / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    code, out, _ = command("check", run)
    assert (code, "manifest.json' is damaged" in out) == (1, True)
    assert command("query", run)[0] == 2
    assert command("check", run, "--renew")[0] == 0
    assert command("query", run)[0] == 0
    assert command("check", run / "evaluations", "--renew")[0] == 2
    assert command("check", run, "--recompute", 0)[0] == 2


def test_edited_scores_are_found_by_computing_them_again(run: Path, command: Command) -> None:
    for path in run.glob("evaluations/*.parquet"):
        rewritten(path, "agreement", lambda old: [value if value == 1 else 0.123 for value in old])
    index_all(run)
    code, out, _ = command("check", run, "--recompute", 1000, "--quiet")
    assert code == 1 and "agreement: found 0.123, expected" in out
    evaluations = Run.open(run).evaluations()
    right = int((evaluations["agreement"] == 1).sum())
    assert f"{right} of {len(evaluations)} recomputed outcomes are equal." in out


def test_what_is_not_computed_again_is_said(search: Callable[..., Run], command: Command) -> None:
    folder = search(evaluations=2, metrics=("log_likelihood",)).folder
    code, out, _ = command("check", folder, "--recompute", 5, "--quiet")
    assert code == 0 and "computed again, but not log_likelihood" in out


def test_functions_are_computed_again_where_they_are_trusted(
    search: Callable[..., Run], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lengths.py").write_text("def score(references, output, record):\n    return len(output) / 100\n")
    monkeypatch.syspath_prepend(tmp_path)
    consent.allow("lengths:score")
    folder = search(evaluations=4, criterion="lengths:score").folder
    words = ["check", folder, "--recompute", 4, "--quiet"]
    assert command(*words, "--trust-code", "lengths:score")[0] == 0
    monkeypatch.setattr(importlib.import_module("lengths"), "score", lambda references, output, record: 123.0)
    functions._load.cache_clear()
    code, out, _ = command(*words, "--trust-code", "lengths:score")
    assert code == 1 and "lengths:score: found" in out and "expected 123" in out
    functions._load.cache_clear()


def test_edited_parts_are_accepted_on_request(run: Path, command: Command) -> None:
    [first, *_] = sorted(run.glob("evaluations/*.parquet"))
    table = pq.read_table(first)
    place = table.column_names.index("family")
    pq.write_table(table.set_column(place, "family", pa.array(["other"] * len(table))), first)
    assert command("check", run)[0] == 1
    code, out, _ = command("check", run, "--renew")
    assert (code, "whole and consistent" in out) == (0, True)
    assert "other" in set(Run.open(run).evaluations()["family"])
