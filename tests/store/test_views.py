"""The views of SQL beside those of the search: tasks, controllers, measures; names that are words of SQL."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from made_up import write_extras
from random_runs import complete_run, random_outcomes
from tiny import jsonl

from analysis import queries
from oracle.errors import InputError
from oracle.store import Run
from oracle.store.sql import UNRESERVED

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(search: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Nine sequences of three tasks, one of which has only a sequence that tells nothing."""
    rows = [
        {"id": f"s{i}", "task": "ab"[i % 2], "prompt": f"Question {i}?", "references": ["x", "y"]} for i in range(8)
    ]
    rows.append({"id": "s8", "task": "c", "prompt": "Question 8?", "references": ["z"]})
    data = jsonl(tmp_path_factory.mktemp("data") / "tasks.jsonl", *rows)
    return search(data=data, criterion="agreement", tolerance=0.5, evaluations=12)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "measured"
    rng = np.random.default_rng(0)
    complete_run(folder, {f"s000{n}": random_outcomes(rng, 8) for n in range(4)})
    write_extras(folder)
    return Run.open(folder)


def test_tasks_are_those_of_the_query(run: Run) -> None:
    found = run.query("FROM tasks").set_index("task")
    expected = pd.DataFrame(queries.by_task(queries.budgets(run.folder, statistical=False))).set_index("task")
    assert set(found.columns) == set(expected.columns)
    expected = expected.astype(float)
    pd.testing.assert_frame_equal(found.loc[expected.index, expected.columns].astype(float), expected)
    assert found["sequences"].to_dict() == {"a": 4, "b": 4, "c": 1}


def test_tasks_of_which_some_tell_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tried = {f"s{n}": random_outcomes(rng, 8) for n in range(5)}
    for name in ("s1", "s4"):
        tried[name][0] = (tried[name][0][0], 0.0)
    run = complete_run(tmp_path / "run", tried)
    minimal = run.table("minimal_budgets")
    [row] = run.query("FROM tasks").to_dict("records")
    told = minimal[minimal["informative"]]
    assert row["sequences"] == 5 and row["informative"] == len(told) == 3
    assert row["zero_quality"] == 2 and row["certified"] == minimal["certified"].sum()
    assert row["fraction_informative"] == pytest.approx(told["upper"].mean() / run.units)
    assert np.isnan(row["fraction_of_others"])


def test_controllers_and_measures_are_the_tables_on_disk(measured: Run) -> None:
    controllers = pd.read_parquet(measured.folder / "controllers" / "comparison.parquet")
    pd.testing.assert_frame_equal(measured.query("FROM controllers"), controllers, check_dtype=False)
    for name in ("similarity", "throughput", "claims"):
        table = pd.read_parquet(measured.folder / "measures" / f"{name}.parquet")
        columns = ", ".join(f'"{column}"' for column in table.columns)
        found = measured.query(f"SELECT {columns} FROM measures WHERE measure = '{name}'")
        pd.testing.assert_frame_equal(found, table, check_dtype=False)
    sql = """SELECT kind, budget, avg(cosine) AS cosine FROM measures WHERE measure = 'similarity'
        GROUP BY kind, budget ORDER BY kind, budget"""
    means = pd.read_parquet(measured.folder / "measures" / "similarity.parquet")
    expected = means.groupby(["kind", "budget"], as_index=False)["cosine"].mean()
    pd.testing.assert_frame_equal(measured.query(sql), expected, check_dtype=False)


def test_what_is_missing_names_the_command(run: Run, command: Command) -> None:
    for name, adds in {"controllers": "compare", "measures": "measure"}.items():
        with pytest.raises(InputError, match=f"'oracle {adds} .*' adds {name}$"):
            run.query(f"FROM {name}")
        code, out, err = command("query", run.folder, "--sql", f"FROM {name}")
        assert (code, out) == (2, "") and f"adds {name}" in err and err.count("\n") == 1


def test_a_damaged_table_concerns_its_own_queries_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    complete_run(tmp_path / "run", {f"s000{n}": random_outcomes(rng, 6) for n in range(2)})
    write_extras(tmp_path / "run")
    (tmp_path / "run" / "measures" / "throughput.parquet").write_bytes(b"x")
    run = Run.open(tmp_path / "run")
    assert len(run.query("FROM controllers")) == 2 and len(run.query("FROM evaluations")) == 12
    with pytest.raises(InputError, match=r"throughput.parquet' is damaged .*; run 'oracle measure .*' again"):
        run.query("SELECT * FROM measures")


def test_no_column_needs_quotes(run: Run, measured: Run) -> None:
    rows = duckdb.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    reserved = {name for (name,) in rows}
    for one in (run, measured):
        views = one.query("SHOW TABLES")["name"].tolist()
        assert {"tasks", "sequences", "evaluations", "frontiers", "minimal_budgets"} <= set(views)
        for view in views:
            names = one.query(f"DESCRIBE {view}")["column_name"].tolist()
            quoted = [name for name in names if name.lower() in reserved]
            assert all(UNRESERVED.get(name) in names for name in quoted), (view, quoted)
    both = run.query('SELECT "references" AS one, reference_texts AS other FROM sequences')
    assert [list(each) for each in both["one"]] == [list(each) for each in both["other"]]


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT references FROM sequences", "references"),
        ("SELECT s.references FROM sequences s", None),
        ("SELECT sequence FROM sequences WHERE len(references) > 1", "references"),
        ("SELECT task AS group FROM sequences", None),
        ("SELECT group FROM sequences", "group"),
        ('SELECT "references" FROM sequences WHERE', None),
        ("SELECT count(*) FROM sequences GROUP task", None),
    ],
)
def test_a_reserved_word_is_named_with_its_quotes(run: Run, sql: str, word: str | None) -> None:
    try:
        run.query(sql)
    except InputError as error:
        said = str(error)
        assert said.startswith("the SQL fails: ") and "\n" not in said
        hint = f'{word} is a reserved word of SQL: as a name, write it in double quotes, "{word}"'
        assert (hint in said) if word else ("reserved" not in said)
        assert ("reference_texts" in said) == (word == "references")
    else:
        assert word is None, "DuckDB takes it"
