"""A run folder: what is written is what is read, and whatever is wrong with one is an InputError."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oracle.errors import InputError
from oracle.store import Run, RunWriter, check_free
from oracle.store.files import write_part, write_table
from oracle.store.index import index_all
from oracle.store.schema import READABLE, SCHEMA_VERSION
from oracle.types import Outcome, Sequence

MANIFEST = {
    "config": {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode", "data": "größe.jsonl"},
    "model": {"id": "tiny", "fingerprint": "f00d", "layers": 3},
    "seed": 7,
}
SEQUENCES = [
    Sequence(id="é/1", prompt="Wie groß? \u2028 日本\n\t\x1b", references=("so", "\U0001f600 nö"), task="größe"),
    Sequence(id="2", prompt=" ", choices=("a", "b"), answer=1),
]
FULL = Outcome(
    allocation=(0, 1, 2),
    family="full",
    tokens=(5, 70_000, 0),
    text='ünï "cø\x00dé" \U0001f600\n',
    finished=True,
    margin=0.1,
    quality={"rougeL": 1 / 3, "agreement": 1.0},
)
NOTHING = Outcome(
    allocation=(), family="random", tokens=(), text="", finished=False, margin=float("inf"), rerun=True, quality={}
)
ROWS = [("é/1", 0, FULL), ("é/1", 1, NOTHING), ("2", 0, replace(FULL, quality={"rougeL": -0.0}))]
QUALITIES = ["rougeL", "agreement"]


def write(folder: Path) -> Path:
    writer = RunWriter(folder, MANIFEST)
    writer.write_sequences(SEQUENCES, [11, 1])
    writer.append(ROWS[:2], QUALITIES)
    writer.append(ROWS[2:], QUALITIES)
    writer.write_result("minimal_budgets", pd.DataFrame({"sequence": ["é/1"], "allocation": [[0, 2]], "upper": [2]}))
    writer.write_summary({"sequences": 1, "fraction": 1 / 3, "none": None, "text": "größe"})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "run")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plain(table: pd.DataFrame) -> list[dict[str, object]]:
    rows = table.to_dict("records")
    return [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in rows]


def test_evaluations_come_back_as_they_were_written(run: Path) -> None:
    rows = plain(Run.open(run).evaluations())
    assert len(rows) == 3
    for row, (sequence, number, outcome) in zip(rows, ROWS, strict=True):
        assert (row["sequence"], row["number"], row["family"]) == (sequence, number, outcome.family)
        assert (row["allocation"], row["cost"]) == (list(outcome.allocation), len(outcome.allocation))
        assert (row["tokens"], row["text"]) == (list(outcome.tokens), outcome.text)
        assert (row["finished"], row["margin"], row["rerun"]) == (outcome.finished, outcome.margin, outcome.rerun)
        for name in QUALITIES:
            expected = outcome.quality.get(name, float("nan"))
            assert np.array_equal(row[name], expected, equal_nan=True)


def test_qualities_are_numbers_even_where_all_are_missing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", MANIFEST)
    writer.append(ROWS[1:2], ["rougeL"])
    evaluations = Run.open(tmp_path / "run").evaluations()
    assert evaluations["rougeL"].dtype == np.float64
    assert evaluations["rougeL"].isna().all()


def test_sequences_results_summary_and_manifest_come_back(run: Path) -> None:
    opened = Run.open(str(run))
    assert opened.manifest == {"schema_version": SCHEMA_VERSION, "indexed": True, **MANIFEST}
    first, second = plain(opened.sequences())
    assert (first["sequence"], first["task"], first["prompt"]) == ("é/1", "größe", SEQUENCES[0].prompt)
    assert (first["references"], first["choices"]) == (list(SEQUENCES[0].references), [])
    assert (second["choices"], second["answer"], second["prompt_tokens"]) == (["a", "b"], 1, 1)
    assert np.isnan(first["answer"])
    assert plain(opened.table("minimal_budgets")) == [{"sequence": "é/1", "allocation": [0, 2], "upper": 2}]
    assert opened.summary() == {"sequences": 1, "fraction": 1 / 3, "none": None, "text": "größe"}


def test_a_manifest_may_hold_a_file_name_that_is_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jsonl")
    RunWriter(tmp_path / "run", {**MANIFEST, "config": {**MANIFEST["config"], "data": name}})
    assert Run.open(tmp_path / "run").manifest["config"]["data"] == name


def test_parts_are_read_in_the_order_they_were_written(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", MANIFEST)
    for number in range(12):
        writer.append([("s", number, FULL)], QUALITIES)
    assert Run.open(tmp_path / "run").evaluations()["number"].tolist() == list(range(12))


def test_names_of_folders_above_add_no_column(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path / "number=3" / "seed=1"))
    assert run.evaluations()["number"].tolist() == [0, 1, 0]
    assert "seed" not in run.evaluations().columns


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert len(Run.open(write(tmp_path / "run")).evaluations()) == 3


def test_a_folder_that_is_there_is_refused_and_left_as_it_was(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_bytes(b"mine")
    before = content(tmp_path)
    for folder in (run, tmp_path / "file", tmp_path / "other"):
        for refuses in (check_free, lambda folder: RunWriter(folder, MANIFEST)):
            with pytest.raises(InputError, match="already exists; choose another --out"):
                refuses(folder)
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other", "run"]


@pytest.mark.parametrize("name", ["file/run", "file/a/run", "x" * 300])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"cannot write to '.*' \(.*\); choose another --out") as caught:
        RunWriter(tmp_path / name, MANIFEST)
    assert "\n" not in str(caught.value)
    assert content(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("found", [SCHEMA_VERSION + 1, 0, "1", None])
def test_another_schema_version_is_refused_by_name(run: Path, found: object) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "schema_version": found}))
    readable = ", ".join(map(str, READABLE))
    with pytest.raises(InputError, match=f"has schema version {found}, but this layer-oracle reads {readable};"):
        Run.open(run)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema_version": 1', b"\xff\xfe", b"[" * 100_000, None])
def test_a_missing_or_unreadable_manifest_is_no_run(run: Path, damage: bytes | None) -> None:
    (run / "manifest.json").unlink()
    if damage is not None:
        (run / "manifest.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"a run folder is required, but .* has no (readable )?manifest\.json"):
        Run.open(run)


@pytest.mark.parametrize("missing", ["seed", "config", "model", "config.criterion", "config.scope", "model.layers"])
def test_a_manifest_without_what_reading_needs_is_damaged(run: Path, missing: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    section, _, name = missing.partition(".")
    if name:
        del manifest[section][name]
    else:
        manifest[section] = None
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"manifest\.json' is damaged \(no {missing}"):
        Run.open(run)


def test_no_run_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match="a run folder is required"):
            Run.open(place)


READS: dict[str, Callable[[Run], object]] = {
    "sequences.parquet": Run.sequences,
    "evaluations": Run.evaluations,
    "minimal_budgets.parquet": lambda run: run.table("minimal_budgets"),
    "summary.json": Run.summary,
}


@pytest.mark.parametrize("name", READS)
def test_truncated_files_are_damaged(run: Path, name: str) -> None:
    path = max((run / name).iterdir()) if name == "evaluations" else run / name
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"is damaged \(.*continue with 'oracle search --resume") as caught:
            READS[name](Run.open(run))
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_a_changed_byte_of_a_part_is_noticed(run: Path) -> None:
    path = min((run / "evaluations").iterdir())
    whole = path.read_bytes()
    for position in range(0, len(whole), 17):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        with pytest.raises(InputError, match=rf"{path.name}' is damaged \(its digest is [0-9a-f]{{16}}\)"):
            Run.open(run).evaluations()


def test_a_table_of_something_else_is_damaged(run: Path) -> None:
    pq.write_table(pa.table({"sequence": ["a"], "number": ["zero"]}), run / "sequences.parquet")
    index_all(run)
    with pytest.raises(InputError, match=r"sequences\.parquet' is damaged \(it has no digest"):
        Run.open(run).sequences()
    write_table(run / "sequences.parquet", pa.table({"sequence": ["a"], "number": ["zero"]}))
    with pytest.raises(InputError, match=r"sequences\.parquet' is damaged \(no column task\)"):
        Run.open(run).sequences()
    write_part(run / "evaluations" / "part-00001", pa.table({"sequence": ["a"], "number": ["zero"]}))
    with pytest.raises(InputError, match=r"part-00001.*' is damaged \(no column number\)"):
        Run.open(run).evaluations()


def test_parts_of_different_runs_do_not_mix(run: Path, tmp_path: Path) -> None:
    RunWriter(tmp_path / "other", MANIFEST).append(ROWS, ["chrf"])
    [part] = (tmp_path / "other" / "evaluations").iterdir()
    part.replace(run / "evaluations" / part.name.replace("00000", "00002"))
    with pytest.raises(InputError, match=r"part-00002.*' is damaged \(it is not listed in index\.json\)"):
        Run.open(run).evaluations()
    index_all(run)
    with pytest.raises(InputError, match=r"part-00002.*' has other columns than the parts before it"):
        Run.open(run).evaluations()


def test_evaluations_that_went_missing_are_noticed(run: Path) -> None:
    writer = RunWriter.reopen(run)
    writer.certify([{"sequence": "é/1", "evaluations": 2, "exhausted": 0}])
    assert len(Run.open(run).evaluations()) == 3
    min((run / "evaluations").iterdir()).unlink()
    with pytest.raises(InputError, match="lacks evaluations of 'é/1'; continue with"):
        Run.open(run).evaluations()
    assert len(Run.open(run).evaluations(whole=False)) == 1


def test_damaged_parts_are_set_aside_when_a_run_goes_on(run: Path) -> None:
    first, _ = sorted((run / "evaluations").iterdir())
    kept = first.read_bytes()
    first.write_bytes(b"PAR1" + kept[4:-1])
    (run / "evaluations" / ".part-00002.77.tmp").touch()
    writer = RunWriter.reopen(run)
    assert sorted(path.suffix for path in (run / "evaluations").iterdir()) == [".damaged", ".parquet"]
    assert first.with_suffix(".damaged").read_bytes() == b"PAR1" + kept[4:-1]
    assert Run.open(run).evaluations()["number"].tolist() == [0]
    writer.append(ROWS[:2], QUALITIES)
    assert Run.open(run).evaluations()["number"].tolist() == [0, 1, 0]
    [line] = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if "set aside" in line]
    assert line["level"] == "warning" and line["file"] == f"evaluations/{first.name}"


def test_one_writer_at_a_time_and_a_dead_one_does_not_count(run: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from oracle.store import RunWriter\n"
        f"writer = RunWriter.reopen(Path({str(run)!r})); print('in', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "in\n"
        with pytest.raises(InputError, match=rf"is being written by process {holder.pid} on .* since .*; wait"):
            RunWriter.reopen(run)
        assert len(Run.open(run).evaluations()) == 3
    finally:
        holder.kill()
        holder.wait()
    with RunWriter.reopen(run):
        pass


def test_a_run_that_did_not_end_says_so(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", MANIFEST)
    run = Run.open(tmp_path / "run")
    for read in READS.values():
        with pytest.raises(InputError, match=r"has no .*; continue with 'oracle search --resume"):
            read(run)


def _fails(*args: object, **kwargs: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_nothing_behind(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path / "other", MANIFEST)
    before = content(tmp_path / "other")
    monkeypatch.setattr("os.fsync", _fails)
    for attempt in (
        lambda: writer.append(ROWS, QUALITIES),
        lambda: writer.write_sequences(SEQUENCES, [1, 2]),
        lambda: writer.write_result("minimal_budgets", pd.DataFrame({"a": [1]})),
        lambda: writer.write_summary({"a": 1}),
    ):
        with pytest.raises(InputError, match=r"cannot write to .*No space left.*--resume"):
            attempt()
    assert content(tmp_path / "other") == before
    monkeypatch.undo()
    # What failed can be done again, and counts once.
    writer.append(ROWS, QUALITIES)
    assert len(Run.open(tmp_path / "other").evaluations()) == 3


def test_a_write_that_is_cut_off_leaves_the_old_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(table: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    before = content(run)
    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_table(run / "sequences.parquet", pa.table({"a": [1]}))
    assert content(run) == before


def test_not_a_number_is_no_json(run: Path) -> None:
    before = content(run)
    writer = RunWriter(run.parent / "other", MANIFEST)
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.write_summary({"fraction": float("nan")})
    assert not (run.parent / "other" / "summary.json").exists()
    assert content(run) == before
