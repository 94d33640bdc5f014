"""`oracle runs`, `oracle --version` and `oracle.__version__`."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import oracle
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(search: Callable[..., Run], tmp_path: Path) -> Path:
    """A complete run, one without its summary, one whose manifest was edited, and an export."""
    run = search(out=tmp_path / "deep" / "complete", criterion="agreement", evaluations=8)
    for name in ("unfinished", "edited"):
        shutil.copytree(run.folder, tmp_path / name)
    (tmp_path / "unfinished" / "summary.json").unlink()
    manifest = tmp_path / "edited" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"agreement"', '"rougeL"'))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "manifest.json").write_text('{"format": "jsonl"}')
    return tmp_path


def test_every_run_has_a_row_with_its_state(folder: Path, command: Command) -> None:
    code, out, err = command("runs", folder, "--json")
    assert (code, err) == (1, "")
    rows = {Path(row["run"]).name: row for row in json.loads(out)["runs"]}
    assert set(rows) == {"complete", "unfinished", "edited"}
    summary = Run.open(folder / "deep" / "complete").summary()
    assert rows["complete"]["per_sequence"] == summary["per_sequence_fraction"]
    assert rows["complete"]["equal_quality"] == summary["equal_quality_fraction"]
    assert [rows[name]["sequences"] for name in ("complete", "unfinished")] == [6, 6]
    assert [rows[name]["state"] for name in ("complete", "unfinished")] == ["complete", "unfinished"]
    assert rows["unfinished"]["equal_quality"] is None
    assert "manifest.json' is damaged" in rows["edited"]["state"]


def test_tables_and_csv_have_the_same_rows(folder: Path, command: Command) -> None:
    shutil.rmtree(folder / "edited")
    code, out, _ = command("runs", folder, "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [Path(row["run"]).name for row in rows] == ["complete", "unfinished"]
    code, out, _ = command("runs", folder)
    assert code == 0
    assert f"{100 * float(rows[0]['per_sequence']):.1f} %" in out
    assert out.count("agreement") == 2


def test_folders_without_runs_and_paths_that_are_none(tmp_path: Path, command: Command) -> None:
    assert command("runs", tmp_path) == (0, f"No runs in {tmp_path}; 'oracle search' writes one.\n", "")
    code, _, err = command("runs", tmp_path / "missing")
    assert code == 2
    assert err.startswith("oracle: error: a folder is required, but ")


def test_the_version(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert oracle.__version__ == version("layer-oracle")
    with pytest.raises(SystemExit) as left:
        command("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"layer-oracle {oracle.__version__}\n"
    assert not [name for name in dir(oracle) if name not in oracle.__all__ and not name.startswith("__")]
