"""Queries of the command line are bounded: in time, in memory, and in what they show."""

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

BOMBS = {
    "list": "SELECT list(range) FROM range(600000000)",
    "text": "SELECT string_agg(range::VARCHAR) FROM range(600000000)",
    "one value": "SELECT length(repeat('x', 2000000000) || repeat('y', 2000000000))",
    "recursion": "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x",
    "product": "SELECT count(*) FROM range(3000000) a, range(3000000) b",
    "cells": "SELECT repeat('x', 300000000) AS x FROM range(100)",
}


@pytest.fixture(scope="module")
def run(search: Callable[..., Run]) -> Path:
    return search(evaluations=6).folder


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_in_time_within_memory(run: Path, bomb: str, command: Command) -> None:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.monotonic()
    code, _, error = command("query", run, "--sql", BOMBS[bomb], "--seconds", 5, "--memory", 200)
    assert (code, error.count("\n")) == (2, 1)
    assert "longer than 5 s" in error or "emory" in error or "too long to show" in error
    assert time.monotonic() - began < 15
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak <= max(before, 3.5 * 2**20)


def test_rows_are_streamed(run: Path, tmp_path: Path) -> None:
    words = ["query", str(run), "--csv", "--sql", "SELECT * FROM range(1000000000000)"]
    process = subprocess.Popen([sys.executable, "-m", "oracle", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(100_001)][-1] == "99999\n"
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        [peak] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        assert int(peak) < 600 * 1024
    process.stdout.close()
    assert process.wait(10) == 0


@pytest.mark.parametrize("bomb", ["recursion", "one value", "product"])
def test_an_interrupt_is_honoured_within_a_second(run: Path, bomb: str) -> None:
    words = ["query", str(run), "--sql", BOMBS[bomb]]
    process = subprocess.Popen([sys.executable, "-m", "oracle", *words], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (children.read_text() if children.exists() else time.sleep(5)) and process.poll() is None:
        time.sleep(0.05)
    child = children.read_text().split()[0] if children.exists() else None
    time.sleep(2)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - began < 4  # a second, on a machine that does nothing else
    assert process.stderr is not None and process.stderr.read() == "oracle: interrupted\n"
    assert child is None or not Path(f"/proc/{child}").exists()


def test_rows_come_as_csv_json_and_a_table(run: Path, command: Command) -> None:
    sql = "SELECT sequence, number, allocation, NULL AS none FROM evaluations ORDER BY ALL"
    expected = Run.open(run).query(sql)
    code, out, _ = command("query", run, "--json", "--sql", sql)
    answer = json.loads(out)
    assert (code, answer["columns"]) == (0, list(expected.columns))
    assert out == json.dumps(answer) + "\n"
    assert [row["allocation"] for row in answer["rows"]] == [each.tolist() for each in expected["allocation"]]
    rows = list(csv.reader(io.StringIO(command("query", run, "--csv", "--sql", sql)[1])))
    assert rows[0] == list(expected.columns) and len(rows) == len(expected) + 1
    _, out, _ = command("query", run, "--sql", "SELECT * FROM range(20000)")
    assert "Only the first 10,000 rows" in out and out.count("\n") < 10_010
    code, out, _ = command("query", run, "--json", "--sql", "SELECT 1 AS x WHERE false")
    assert (code, json.loads(out)) == (0, {"columns": ["x"], "rows": []})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT value FROM duckdb_settings()",
        "PRAGMA database_list",
        "SELECT * FROM duckdb_databases()",
        "SELECT getenv('HOME')",
        "SELECT * FROM read_text('x')",
        "SELECT error('x')",
    ],
)
def test_no_folder_is_shown(run: Path, sql: str, command: Command) -> None:
    _, out, error = command("query", run, "--csv", "--sql", sql)
    shown = (out + error).replace(str(run), "")
    for folder in ("/tmp", "/proc", str(Path.home()), str(Path.cwd()), "layer-oracle-query"):
        assert folder not in shown


@pytest.mark.parametrize("option", [("--seconds", "0"), ("--seconds", "nan"), ("--memory", "1")])
def test_limits_are_checked(run: Path, option: tuple[str, str], command: Command) -> None:
    code, _, error = command("query", run, "--sql", "SELECT 1", *option)
    assert (code, f"{option[0]} needs" in error) == (2, True)
