"""SQL over a run: its views say what the run says, and nothing else is within reach."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from oracle.costs import Costs
from oracle.errors import InputError
from oracle.store import Run, RunWriter
from oracle.store import sql as module
from oracle.store.files import write_part, write_table
from oracle.store.index import index_all
from oracle.types import Outcome, Sequence

UNITS = 4
MANIFEST = {
    "config": {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode"},
    "model": {"id": "tiny", "fingerprint": "f00d", "layers": UNITS},
    "seed": 0,
}
COSTS = {"units": [1.5, 0.1, 0.7, 0.1], "states": [0.0] * UNITS, "overhead": 0.3, "unit_of_measure": "ms/token"}
SEQUENCES = [Sequence(id=f"s{i}", prompt=f"Question {i}?", references=("so",), task="ab"[i % 2]) for i in range(3)]
FULL = Outcome(
    allocation=tuple(range(UNITS)), family="full", tokens=(1,), text="so", finished=True, margin=1.0, quality={}
)


def outcome(number: int, generator: np.random.Generator) -> Outcome:
    if not number:
        return replace(FULL, quality={"rougeL": 0.5})
    allocation = tuple(np.flatnonzero(generator.random(UNITS) < 0.5).tolist())
    quality = {"rougeL": float(generator.integers(0, 1 + len(allocation))) / UNITS} if number % 7 else {}
    return replace(FULL, allocation=allocation, family="random", dropped=not quality, quality=quality)


def write(folder: Path, **changes: object) -> Path:
    """A run that has not ended: its sequences were searched side by side, and some outputs were dropped."""
    generator = np.random.default_rng(0)
    with RunWriter(folder, {**MANIFEST, **changes}) as writer:
        writer.write_sequences(SEQUENCES, [3, 4, 5])
        for first in range(0, 40, 10):
            rows = [(s.id, n, outcome(n, generator)) for n in range(first, first + 10) for s in SEQUENCES]
            writer.append(rows, ["rougeL", "chrf"])
    return folder


def end(folder: Path) -> Path:
    """Writes what an ended search adds, as far as views show it."""
    budgets = pd.DataFrame({"sequence": ["s0", "s1"], "upper": [2, 4], "lower": [2, 0], "certified": [True, False]})
    write_table(folder / "minimal_budgets.parquet", pa.Table.from_pandas(budgets))
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.open(end(write(tmp_path_factory.mktemp("runs") / "run")))


@pytest.fixture
def own(run: Run, tmp_path: Path) -> Run:
    """A copy that may be damaged."""
    return Run.open(shutil.copytree(run.folder, tmp_path / "own"))


def plain(table: pd.DataFrame) -> list[dict[str, object]]:
    rows = json.loads(table.to_json(orient="records"))
    assert isinstance(rows, list)
    return rows


def test_views_hold_what_the_run_holds(run: Run) -> None:
    evaluations = run.evaluations()
    found = run.query("SELECT * EXCLUDE fraction FROM evaluations ORDER BY sequence, number")
    assert list(found.columns) == list(evaluations.columns)
    assert plain(found) == plain(evaluations)
    assert plain(run.query("SELECT * EXCLUDE reference_texts FROM sequences ORDER BY sequence")) == plain(
        run.sequences()
    )
    found = run.query("FROM minimal_budgets ORDER BY sequence")
    assert plain(found[run.table("minimal_budgets").columns]) == plain(run.table("minimal_budgets"))
    assert found["fraction"].tolist() == [2 / UNITS, 4 / UNITS]
    fractions = run.query("SELECT fraction FROM evaluations ORDER BY sequence, number")["fraction"]
    assert fractions.tolist() == (evaluations["cost"] / UNITS).tolist()


def test_rows_come_part_by_part_as_they_were_written(run: Run) -> None:
    assert run.query("SELECT number FROM evaluations")["number"].tolist() == [n for n in range(40) for _ in SEQUENCES]


def test_the_frontier_is_what_beats_everything_cheaper(run: Run) -> None:
    evaluations = run.evaluations().query("not dropped")
    expected = []
    for sequence, rows in evaluations.groupby("sequence"):
        best = -np.inf
        for cost, level in rows.groupby("cost"):
            top = level.sort_values(["rougeL", "number"], ascending=[False, True]).iloc[0]
            if top["rougeL"] > best:
                best = top["rougeL"]
                expected.append([sequence, cost, cost / UNITS, best, top["number"], top["allocation"].tolist()])
    found = run.query("FROM frontiers ORDER BY sequence, cost")
    columns = ["sequence", "cost", "fraction", "quality", "number", "allocation"]
    assert [[*row[:-1], row[-1].tolist()] for row in found[columns].itertuples(index=False, name=None)] == [
        list(row) for row in expected
    ]
    assert len(expected) > len(SEQUENCES)


def test_costs_are_those_that_the_search_minimised(tmp_path: Path) -> None:
    run = Run.open(write(tmp_path / "run", costs=COSTS))
    names = {"unit": "layer", "context": 1, "batch": 1, "dtype": "float32", "device": "cpu", "model": "tiny"}
    costs = Costs.from_dict({**COSTS, **names, "fingerprint": "f00d"})
    found = run.query("SELECT allocation, cost, fraction FROM evaluations")
    expected = costs.of_each(found["allocation"])
    assert found["cost"].tolist() == expected.tolist()
    assert found["fraction"].tolist() == (expected / costs.total).tolist()
    assert run.query("SELECT cost_of([0, 0, 3]) AS cost")["cost"].tolist() == [costs.of((0, 0, 3))]


def test_parameters_stand_for_values(run: Run) -> None:
    mine = run.evaluations().query("sequence == 's1' and cost <= 2")
    by_place = run.query("SELECT number FROM evaluations WHERE sequence = ? AND cost <= ? ORDER BY 1", ["s1", 2])
    by_name = run.query(
        "SELECT number FROM evaluations WHERE sequence = $s AND cost <= $c ORDER BY 1", {"s": "s1", "c": 2}
    )
    assert by_place["number"].tolist() == by_name["number"].tolist() == mine["number"].tolist()
    # A value is never SQL.
    assert run.query("SELECT ? AS text", ["1; DROP VIEW sequences"])["text"].tolist() == ["1; DROP VIEW sequences"]


def test_sums_are_plain_numbers_and_names_are_distinct(run: Run) -> None:
    found = run.query("SELECT sum(cost) AS a, 0.5 AS b, 1 AS a, 1e30::HUGEINT AS c FROM evaluations")
    assert found.dtypes.map(str).to_dict() == {"a": "int64", "b": "float64", "a_": "int32", "c": "float64"}
    assert found["a"].tolist() == [run.evaluations()["cost"].sum()]


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE evaluations",
        "SHOW TABLES",
        "SUMMARIZE evaluations",
        "WITH x AS (SELECT 1) FROM x",
        "VALUES (1)",
        "PIVOT evaluations ON family USING count(*) GROUP BY sequence",
        "SELECT 1; -- and no more",
    ],
)
def test_whatever_only_reads_is_answered(run: Run, sql: str) -> None:
    assert len(run.query(sql))


def test_a_run_that_goes_on_has_what_there_is(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", MANIFEST) as writer:
        writer.write_sequences(SEQUENCES, [3, 4, 5])
        run = Run.open(tmp_path / "run")
        assert run.query("SHOW TABLES")["name"].tolist() == ["sequences"]
        writer.append([("s0", 0, outcome(0, np.random.default_rng(0)))], ["rougeL"])
        assert run.query("SELECT count(*) AS n FROM evaluations JOIN sequences USING (sequence)")["n"].tolist() == [1]
        with pytest.raises(InputError, match=r"no view 'minimal_budgets'; available: evaluations, .*; more when"):
            run.query("FROM minimal_budgets")


REFUSED = {
    "COPY (SELECT 1) TO '{out}'": "not COPY",
    "COPY sequences FROM '{secret}'": "not COPY",
    "ATTACH '{out}'": "not ATTACH",
    "INSTALL httpfs": "not LOAD",
    "LOAD httpfs": "not LOAD",
    "SET enable_external_access = true": "not SET",
    "RESET lock_configuration": "not SET",
    "PRAGMA enable_profiling": "not PRAGMA",
    "PRAGMA database_list": "not PRAGMA",
    "CALL pragma_version()": "not CALL",
    "EXPORT DATABASE '{out}'": "not EXPORT",
    "IMPORT DATABASE '{secret}'": "not PRAGMA",
    "CREATE TABLE mine (a INT)": "not CREATE",
    "CREATE SECRET mine (TYPE s3)": "not CREATE",
    "INSERT INTO sequences VALUES (1)": "not INSERT",
    "DELETE FROM evaluations": "not DELETE",
    "DROP VIEW evaluations": "not DROP",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'": "not EXPLAIN",
    "PREPARE p AS SELECT 1": "not PREPARE",
    "SELECT 1; SELECT 2": "not SELECT and SELECT",
    "SELECT 1; COPY (SELECT 1) TO '{out}'": "not SELECT and COPY",
    "": "not none",
    "-- nothing": "not none",
}

CLOSED = [
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{part}')",
    "SELECT * FROM parquet_metadata('{part}')",
    "SELECT * FROM parquet_kv_metadata('{part}')",
    "SELECT * FROM read_duckdb('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM '{part}'",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM query('SELECT * FROM ''{secret}''')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM 'https://localhost:1/x.csv'",
    "SELECT * FROM 's3://x/x.parquet'",
    "SELECT getenv('HOME')",
    "SELECT * FROM sql_auto_complete('SELECT * FROM ''{folder}/')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM enable_profiling()",
    "SELECT * FROM variable_of_mine",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_arrow_scan(1)",
    "SELECT * FROM pandas_scan(1)",
    "WITH gone AS (DELETE FROM sequences RETURNING *) SELECT * FROM gone",
]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def places(run: Run, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What must not be reached, and a check afterwards that nothing was written anywhere near."""
    (tmp_path / "secret.csv").write_text("a,b\nhidden,2\n")
    before = content(run.folder), content(tmp_path)
    parts = sorted(str(path) for path in (run.folder / "evaluations").iterdir())
    out, secret = tmp_path / "out.csv", tmp_path / "secret.csv"
    yield {"secret": str(secret), "part": parts[0], "out": str(out), "folder": str(tmp_path)}
    assert (content(run.folder), content(tmp_path)) == before


@pytest.mark.parametrize("sql", REFUSED)
def test_only_one_select_is_taken(run: Run, places: dict[str, str], sql: str) -> None:
    with pytest.raises(InputError, match=rf"one SELECT statement is required, {REFUSED[sql]}: ") as caught:
        run.query(sql.format(**places))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sql", CLOSED)
def test_a_select_reaches_nothing_outside(run: Run, places: dict[str, str], sql: str) -> None:
    variable_of_mine = pd.DataFrame({"a": ["hidden"]})
    assert len(variable_of_mine)
    with pytest.raises(InputError, match="the SQL fails: ") as caught:
        run.query(sql.format(**places))
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{out}'",
        "COPY (SELECT * FROM sequences) TO '{part}' (FORMAT parquet)",
        "ATTACH '{out}'",
        "EXPORT DATABASE '{out}'",
        "IMPORT DATABASE '{folder}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{secret}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET enable_external_access",
        "SET temp_directory = '{folder}'",
        "SET allowed_directories = ['/']",
        "PRAGMA memory_limit = '1TB'",
        "CREATE SECRET mine (TYPE s3)",
    ],
)
def test_the_database_is_closed_even_to_other_statements(run: Run, places: dict[str, str], sql: str) -> None:
    """The second wall: were a statement not recognised, it would still find nothing open."""
    closed = replace(run.queried(), tables={})
    with module._database(closed, "", 512) as database, pytest.raises(duckdb.Error):
        database.execute(sql.format(**places))


def test_what_a_query_may_use_is_bounded(run: Run) -> None:
    sql = "SELECT name, value FROM duckdb_settings() WHERE name IN ('threads', 'memory_limit', 'temp_directory')"
    settings = dict(run.query(sql).itertuples(index=False, name=None))
    assert settings["threads"] == "4"
    assert settings["memory_limit"] == "2.0 GiB"
    assert not Path(settings["temp_directory"]).exists()
    with pytest.raises(InputError, match="the SQL fails: Out of Memory Error"):
        run.query("SELECT string_agg(repeat('x', 1000), '') AS a FROM range(3000000)")


WRONG = {
    "FROM budgets": r"there is no view 'budgets'; nearest: 'minimal_budgets'; available: evaluations, frontiers, ",
    "SELECT qualty FROM frontiers": r"""not found in FROM clause; near.*'quality'; available: frontiers \([^()]*\)$""",
    "SELECT f.qualty FROM frontiers f": r"""column named "qualty"; nearest: 'quality'; available: frontiers \(""",
    "SELECT task FROM minimal_budgets": r"ve it: JOIN sequences USING \(sequence\); available: minimal_",
    "SELECT budget FROM minimal_budgets": r"tables print 'upper' as 'budget'; available: minimal_budgets \(",
    "FROM measures": "there is no view 'measures'; available: .*; 'oracle measure .*' adds measures$",
    "SELEC 1": 'Parser Error: syntax error at or near "SELEC"$',
    "SELECT median_of(cost) FROM evaluations": "Scalar Function with name median_of does not exist!$",
    "SELECT ?": "Values were not provided",
    "SELECT error('one\ntwo')": "Invalid Input Error: one$",
    "SELECT '\udcff'": "the SQL must be text, but its character 9 is invalid",
}


@pytest.mark.parametrize("sql", WRONG)
def test_what_is_wrong_is_one_line(run: Run, sql: str) -> None:
    with pytest.raises(InputError, match=WRONG[sql]) as caught:
        run.query(sql)
    assert "\n" not in str(caught.value)
    assert ("available: " in str(caught.value)) == ("available: " in WRONG[sql] or "there is no view" in WRONG[sql])


def truncate(folder: Path) -> str:
    part = max((folder / "evaluations").iterdir())
    part.write_bytes(part.read_bytes()[:-9])
    return rf"{part.name}' is damaged \(its digest is "


def remove(folder: Path) -> str:
    max((folder / "evaluations").iterdir()).unlink()
    return r"is damaged \(it is missing\); continue with"


def mix(folder: Path) -> str:
    with RunWriter.reopen(folder) as writer:
        writer.append([("s0", 0, FULL)], ["bleu"])
    return "has other columns than the parts before it"


def replace_part(folder: Path) -> str:
    write_part(folder / "evaluations" / "part-00009", pa.table({"sequence": ["a"]}))
    return r"is damaged \(no column number\)"


def rename_criterion(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["criterion"] = 'no" such\ncolumn'
    (folder / "manifest.json").write_text(json.dumps(manifest))
    index_all(folder)
    return r"is damaged \(Binder Error: "


def spoil_costs(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["costs"] = {"units": ["1); DROP TABLE x"], "overhead": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return r"is damaged \(costs\.units: found .*, expected a list"


@pytest.mark.parametrize("damage", [truncate, remove, mix, replace_part, rename_criterion, spoil_costs])
def test_a_damaged_run_is_refused(own: Run, damage: Callable[[Path], str]) -> None:
    with RunWriter.reopen(own.folder) as writer:
        rows = [{"sequence": s.id, "evaluations": 40, "exhausted": 0, "executions": 1} for s in SEQUENCES]
        writer.certify(rows)
    assert own.query("SELECT count(*) AS n FROM evaluations")["n"].tolist() == [120]
    message = damage(own.folder)
    with pytest.raises(InputError, match=message) as caught:
        Run.open(own.folder).query("SELECT count(*) FROM evaluations")
    assert "\n" not in str(caught.value)


def test_damage_that_comes_while_it_is_read_is_an_error(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    part = max((own.folder / "evaluations").iterdir())
    monkeypatch.setattr(Run, "damaged", lambda self, name: [])
    content = bytearray(part.read_bytes())
    # Behind the footer's back: the first page.
    content[40:60] = bytes(20)
    part.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        own.query("SELECT * FROM evaluations")


def test_it_can_be_interrupted(run: Run) -> None:
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run.query("SELECT count(*) FROM range(100000000) a, range(10000) b WHERE hash(a.range + b.range) % 7 = 3")
    finally:
        timer.cancel()


def test_parameters_of_numpy_are_numbers_and_others_are_refused(run: Run) -> None:
    found = run.query("SELECT ? + ? AS sum, ? AS half", [np.int64(1), 2, np.float32(0.5)])
    assert found.to_dict("records") == [{"sum": 3, "half": 0.5}]
    assert run.query("SELECT $a AS a", {"a": np.bool_(True)})["a"].tolist() == [True]
    for wrong in ("s1", 12):
        with pytest.raises(InputError, match="parameters need a list of the values"):
            run.query("SELECT ?", wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the SQL must be text, not NoneType"):
        run.query(None)  # type: ignore[arg-type]
