"""Sequences and SQL that mean harm."""

import contextlib
import io
import json
import re
from pathlib import Path

from faults.ground import Fault, Ground, Process, Tries, one_line
from oracle.cli import main
from oracle.store import Run

__all__ = ["FAULTS"]

HOSTILE = (
    "<script>alert(1)</script> [red]a[/b] \x1b[31mb\x1b[2J\x1b]0;t\x07 \r\x08\x9b1m \u202ed\n' OR 1=1; -- {0} %s ../x"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
GOOD = {"prompt": "Question?", "references": ["Answer"]}

FILES: dict[str, list[object]] = {
    "control characters and HTML": [{"id": f"{HOSTILE}{n}", "prompt": HOSTILE, "references": [HOSTILE]} for n in "ab"],
    "control characters as the only text": [{**GOOD, "prompt": "\x00\x1b\x7f", "task": "\x00"}],
    "a prompt of 1 MB": [GOOD, {**GOOD, "id": "long", "prompt": "x" * 2**20}],
    "a reference of 1 MB": [{**GOOD, "references": ["y " * 2**19]}],
    "an id of 1 MB": [{**GOOD, "id": "z" * 2**20}],
    "ids twice": [{**GOOD, "id": "a"}, {**GOOD, "id": "a"}],
    "ids that are one as text": [{**GOOD, "id": 1}, {**GOOD, "id": "1"}],
    "mixed types": [{**GOOD, "prompt": 7}, {**GOOD, "prompt": None}, {**GOOD, "prompt": ["a"]}, {"references": True}],
    "references of mixed types": [{**GOOD, "references": [1, None, {"a": []}, "b"]}],
    "not objects": ["a", 1, None, [GOOD]],
    "half a surrogate pair": [{**GOOD, "prompt": "\ud800"}],
    "a path as an id": [{**GOOD, "id": "../../../tmp/x"}, {**GOOD, "id": "/etc/passwd"}, {**GOOD, "id": "a\x00b"}],
}

SQL = """
    COPY evaluations TO 'OUT/x.csv'
    COPY (SELECT 1) TO 'OUT/x.parquet' (FORMAT parquet)
    EXPORT DATABASE 'OUT/x'
    ATTACH 'OUT/x.db' AS x
    CREATE TABLE x AS SELECT 1
    INSERT INTO sequences VALUES (1)
    DELETE FROM evaluations
    DROP VIEW evaluations
    UPDATE evaluations SET cost = 0
    SELECT 1; COPY sequences TO 'OUT/x.csv'
    SELECT * FROM 'SECRET'
    SELECT * FROM read_csv('SECRET', header = false)
    SELECT * FROM read_text('SECRET')
    SELECT * FROM read_blob('SECRET')
    SELECT * FROM read_json('SECRET')
    SELECT * FROM read_parquet('RUN/sequences.parquet')
    SELECT * FROM glob('FOLDER/*')
    SELECT * FROM sniff_csv('SECRET')
    SELECT * FROM 'http://127.0.0.1:9/x.csv'
    SELECT * FROM read_csv_auto('https://127.0.0.1:9/x.csv')
    SELECT getenv('HOME')
    INSTALL httpfs
    LOAD httpfs
    SET enable_external_access = true
    RESET enable_external_access
    SET temp_directory = 'OUT/x'
    PRAGMA database_list
    PRAGMA enable_profiling
    CALL pragma_version()
    SELECT * FROM duckdb_secrets()
    CREATE SECRET (TYPE s3)
    EXPLAIN ANALYZE SELECT * FROM read_text('SECRET')
    WITH x AS (SELECT content FROM read_text('SECRET')) SELECT * FROM x
    DESCRIBE SELECT * FROM read_text('SECRET')
    SUMMARIZE 'SECRET'
    PIVOT 'SECRET' ON column0
    SELECT (SELECT content FROM read_text('SECRET'))
    SELECT query FROM query('SELECT * FROM read_text(''SECRET'')')
    SELECT * FROM query_table('SECRET')
    CHECKPOINT
    IMPORT DATABASE 'OUT/x'
    PREPARE x AS SELECT 1
    BEGIN TRANSACTION
    USE memory
"""
SECRET = "a secret text"


def sequences(ground: Ground, times: int) -> Tries:
    """Searches hostile files: the result is a run that shows them as text, or a one-line error."""
    for number in range(times):
        [(name, rows)] = [list(FILES.items())[number % len(FILES)]]
        place = ground.place()
        data, out = place / "data.jsonl", place / "run"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        process = ground.start(ground.search(out, data=data, evaluations=4))
        lost = shown(process, out, place)
        yield f"{name}: {lost}" if lost else None


def shown(process: Process, out: Path, place: Path) -> str | None:
    """What is wrong with what a search says, leaves, and shows when it is asked."""
    code = process.wait()
    if CONTROL.search(process.output):
        return f"control characters are printed: {process.output[-300:]!r}"
    if {path.name for path in place.iterdir()} - {"data.jsonl", "run"}:
        return "something was written beside the run"
    if code:
        return one_line(process, code) or ("it is refused, but a run is there" if out.exists() else None)
    text, first = io.StringIO(), Run.open(out).sequences()["sequence"][0]
    with contextlib.redirect_stdout(text):
        codes = [main(["query", str(out)]), main(["query", str(out), "--sequence", first])]
    return "it cannot be shown as text" if any(codes) or CONTROL.search(text.getvalue()) else None


def sql(ground: Ground, times: int) -> Tries:
    """Asks for what is no SELECT over the run: refused, and nothing is read, written or changed."""
    whole, _ = ground.whole()
    place = ground.place()
    (place / "secret.csv").write_text(f"{SECRET}\n{SECRET}\n")
    names = {"OUT": place, "SECRET": place / "secret.csv", "FOLDER": place, "RUN": whole.folder}
    before = contents(place, whole.folder)
    statements = [line.strip() for line in SQL.strip().splitlines()]
    for number in range(times):
        statement = statements[number % len(statements)]
        for name, path in names.items():
            statement = statement.replace(name, str(path))
        text, errors = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
                code = main(["query", str(whole.folder), "--json", "--sql", statement])
        except BaseException as error:
            yield f"{type(error).__name__}: {error} after {statement}"
            continue
        if code != 2 and harmless(statement):
            code = 2
        leaked = SECRET in text.getvalue() + errors.getvalue()
        if code != 2 or leaked or contents(place, whole.folder) != before:
            yield f"exit code {code} after {statement}: {text.getvalue()[:200]}{errors.getvalue()[:200]}"
        else:
            yield None


def harmless(statement: str) -> bool:
    """What may be answered: it says something of the empty database itself."""
    return statement.startswith(("PRAGMA", "CALL", "SELECT * FROM duckdb_secrets", "SELECT getenv"))


def contents(*folders: Path) -> dict[Path, bytes]:
    """Every file."""
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


FAULTS = [
    Fault(name="hostile sequences", tries=sequences, times=len(FILES), quick=1),
    Fault(name="SQL that tries to leave the run", tries=sql, times=SQL.strip().count("\n") + 1, quick=44),
]
