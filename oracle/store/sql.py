"""A run as a read-only database: one SELECT over its tables, without access to anything else."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from oracle.errors import InputError
from oracle.store.atomic import scratch_folder
from oracle.store.files import damaged
from oracle.utils.text import nearest_hint

__all__ = ["MEMORY_MIB", "Parameters", "Queried", "Table", "batches", "select"]

Table: TypeAlias = pa.Table | ds.Dataset
"""A table in memory, or a data set read as far as a query needs it."""

Parameters = Seq[Any] | Mapping[str, Any]
"""Values of `?` in order, or of `$name` by name."""

MEMORY_MIB = 2048
"""Default memory limit of a query, in MiB."""

LIMITS: dict[str, Any] = {"max_temp_directory_size": "16GB", "threads": 4}

CLOSED: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "home_directory": ".",
    "secret_directory": ".",
}
"""No extension is downloaded or loaded, Python variables are not visible as tables, and settings show no folders."""

SELECTS = (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI)
"""SELECT, also as FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE; a PIVOT counts as several statements."""

FRONTIERS = """
    CREATE VIEW frontiers AS
    WITH best AS (
        SELECT sequence, cost, fraction, max({metric}) AS quality, arg_max(number, ({metric}, -number)) AS number
        FROM evaluations WHERE NOT dropped GROUP BY ALL
    ),
    better AS (
        SELECT *, max(quality) OVER (
            PARTITION BY sequence ORDER BY cost ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
        FROM best QUALIFY before IS NULL OR quality > before
    )
    SELECT sequence, better.cost, better.fraction, quality, number, family, allocation, text
    FROM better JOIN evaluations USING (sequence, number)
"""
"""Per sequence, the allocations that are better than all cheaper ones."""


NAME = r"(?:\bas\s+|[.,]\s*|\bselect\s+|\bby\s+)(\w+)"
"""A word that stands where a name does in SQL."""

EXPRESSIONS = frozenset(("all", "array", "case", "cast", "distinct", "false", "from", "lateral", "not", "null", "true"))
"""Reserved words that may stand there."""

ADDED_BY = {"controllers": "compare", "measures": "measure"}
"""Views that another command than the search adds -> the command."""

PRINTED = {
    "budget": "upper",
    "at_least": "lower",
    "full": "full_quality",
    "minimal_budget": "fraction",
    "output": "text",
    "layers": "cost",
}
"""Headings of printed tables -> the columns of views that they show."""

UNRESERVED = {"references": "reference_texts"}
"""Columns whose names are reserved words of SQL -> their other names, which need no quotes."""


@dataclass(frozen=True, kw_only=True)
class Queried:
    """The data of a run that a query needs.

    Attributes:
        folder: the run folder, for messages.
        tables: those of `sequences`, `evaluations`, `minimal_budgets`, `controllers` and `measures` that exist.
        damaged: names of tables that cannot be read -> the reason and the remedy.
        criterion: column of the evaluations that is the quality in the view `frontiers`.
        units: number of units of the model.
        prices: cost of each unit; None if each costs 1, without overhead.
        overhead: cost of an allocation without units.
        complete: whether the search has ended.
    """

    folder: Path
    tables: Mapping[str, Table]
    criterion: str
    units: int
    prices: Seq[float] | None
    overhead: float
    complete: bool
    damaged: Mapping[str, str] = field(default_factory=dict)


def select(run: Queried, sql: str, parameters: Parameters | None = None) -> pa.Table:
    """Result of one SELECT over a run, complete or not; decimals are converted to integers or floats.

    Args:
        run: the run.
        sql: see `Run.query`.
        parameters: values of `?` or `$name`.

    Raises:
        InputError: if it is not a single SELECT, it fails, or the run is damaged.
    """
    with (
        scratch_folder(Path(tempfile.gettempdir()), "layer-oracle-query") as scratch,
        _database(run, str(scratch), MEMORY_MIB) as database,
    ):
        try:
            _check(database, sql)
            return _numbers(_fetch(database, sql, _values(parameters)))
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _refused(run, database, sql, error) from error


def batches(run: Queried, sql: str, *, memory_mib: int, rows: int) -> Iterator[pa.Table]:
    """The result of `select`, some rows at a time as they are computed; the first table may be empty.

    Nothing is spilled to disk, because the settings that a query can read would name the folder.

    Args:
        run: the run.
        sql: see `Run.query`.
        memory_mib: memory limit of the database, in MiB.
        rows: number of rows per table.

    Raises:
        InputError: as `select`.
    """
    with _database(run, "", memory_mib) as database:
        try:
            _check(database, sql)
            reader = database.sql(sql).to_arrow_reader(rows)
            yield _numbers(reader.schema.empty_table())
            for batch in reader:
                yield _numbers(pa.Table.from_batches([batch]))
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _refused(run, database, sql, error) from error


@contextmanager
def _database(run: Queried, spilled: str, memory_mib: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """An isolated database with the views of a run, whose tables are passed in by Arrow."""
    limits = {**LIMITS, "memory_limit": f"{memory_mib}MiB", "temp_directory": spilled}
    with duckdb.connect(":memory:", config={**limits, **CLOSED}) as database:
        try:
            _create_views(database, run)
        except (duckdb.Error, KeyError, TypeError, ValueError) as error:
            raise damaged(run.folder, _line(error)) from error
        # Closes access to files and network, irrevocably for this database.
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        yield database


def _create_views(database: duckdb.DuckDBPyConnection, run: Queried) -> None:
    database.execute(f"CREATE MACRO cost_of(allocation) AS {_cost(run)}")
    full = f"cost_of(range({run.units}))"
    columns = {
        "sequences": "*" + "".join(f", {_quoted(name)} AS {other}" for name, other in UNRESERVED.items()),
        "evaluations": f"* REPLACE (cost_of(allocation) AS cost), cost_of(allocation) / {full} AS fraction",
        "minimal_budgets": f"*, upper / {full} AS fraction",
        "controllers": "*",
        "measures": "*",
    }
    for name, source in run.tables.items():
        database.from_arrow(source).project(columns[name]).create_view(name)
    if "evaluations" in run.tables:
        database.execute(FRONTIERS.format(metric=_quoted(run.criterion)))
    if {"sequences", "minimal_budgets"} <= run.tables.keys():
        database.execute(_tasks(database.view("minimal_budgets").columns))


def _tasks(known: Seq[str]) -> str:
    """SQL for the view of means per task, from the columns that the minimal budgets have in this run's version."""
    told = "informative" if "informative" in known else "NOT zero_quality" if "zero_quality" in known else "true"
    parts = {
        "full_quality": "avg(full_quality)",
        "zero_quality": "count(*) FILTER (zero_quality)",
        "vacuous": "count(*) FILTER (vacuous <> '')",
        "certified": "count(*) FILTER (certified)",
    }
    counts = "".join(f", {value} AS {name}" for name, value in parts.items() if name in known)
    return f"""
        CREATE VIEW tasks AS
        WITH each AS (
            SELECT task, count(*) AS sequences, count(*) FILTER ({told}) AS informative, avg(fraction) AS fraction,
                avg(fraction) FILTER ({told}) AS fraction_informative,
                coalesce(sum(fraction) FILTER ({told}), 0) AS total {counts}
            FROM minimal_budgets JOIN (SELECT sequence, task FROM sequences) USING (sequence) GROUP BY task
        )
        SELECT * EXCLUDE total, (sum(total) OVER () - total) / nullif(sum(informative) OVER () - informative, 0)
            AS fraction_of_others
        FROM each
    """


def _cost(run: Queried) -> str:
    """SQL for the cost of an allocation, summed price by price in the order of `oracle.costs.Costs.of_each`."""
    if run.prices is None:
        return "len(allocation)"
    terms = [f"'{run.overhead!r}'::DOUBLE"]
    for price in sorted(set(run.prices)):
        units = [unit for unit, other in enumerate(run.prices) if other == price]
        terms.append(f"'{price!r}'::DOUBLE * len(list_filter(allocation, lambda unit: unit IN {units}))")
    return " + ".join(terms)


def _quoted(name: object) -> str:
    return '"' + str(name).replace('"', '""') + '"'


def _check(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    if not isinstance(sql, str):
        raise InputError(f"the SQL must be text, not {type(sql).__name__}")
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the SQL must be text, but its character {error.start + 1} is invalid; remove it") from error
    kinds = [statement.type for statement in database.extract_statements(sql)]
    if len(kinds) != 1 or kinds[0] not in SELECTS:
        found = " and ".join(kind.name for kind in kinds) or "none"
        raise InputError(f"one SELECT statement is required, not {found}: runs are read-only")


def _values(parameters: Parameters | None) -> Parameters | None:
    """The parameters with numbers of numpy as Python's, which DuckDB knows."""

    def plain(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else value

    if isinstance(parameters, Mapping):
        return {name: plain(value) for name, value in parameters.items()}
    if parameters is None:
        return None
    if isinstance(parameters, Seq) and not isinstance(parameters, str | bytes):
        return [plain(value) for value in parameters]
    raise InputError(
        f"parameters need a list of the values of '?', or a dictionary of those by name, not {parameters!r:.80}: "
        "put it in a list"
    )


def _fetch(database: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters | None) -> pa.Table:
    # DuckDB does not handle Ctrl-C while it waits for Arrow, so another thread waits.
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: database.sql(sql, params=parameters).to_arrow_table())
        try:
            return answer.result()
        except KeyboardInterrupt:
            database.interrupt()
            raise


def _numbers(table: pa.Table) -> pa.Table:
    """The table with DuckDB's decimals (sums of integers) as plain numbers, and with distinct column names."""
    for place, found in enumerate(table.schema):
        name, kind, column = found.name, found.type, table.column(place)
        if pa.types.is_decimal(kind):
            try:
                column = column.cast(pa.float64() if kind.scale else pa.int64())
            except pa.ArrowInvalid:
                column = column.cast(pa.float64())
        while name in table.column_names[:place]:
            name += "_"
        table = table.set_column(place, name, column)
    return table


def _refused(run: Queried, database: duckdb.DuckDBPyConnection, sql: str, error: Exception) -> InputError:
    """The error with its first line, and the available columns if a name is unknown."""
    line = _line(error)
    for name, reason in run.damaged.items():
        if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
            return InputError(reason)
    if not isinstance(error, duckdb.Error) or "Arrow source failed" in line:
        return InputError(f"the run '{run.folder}' cannot be read ({line}); is it complete and undamaged?")
    views = {name: list(database.view(name).columns) for (name,) in database.sql("SHOW TABLES").fetchall()}
    if missing := re.search(r"Table with name (\S+) does not exist", line):
        return InputError(f"the SQL fails: there is no view {missing[1]!r}{_other_view(run, missing[1], views)}")
    if re.search(r"[Cc]olumn|Table \"", line):
        return InputError(f"the SQL fails: {line.rstrip('.!')}{_other_column(line, sql, views)}")
    return InputError(f"the SQL fails: {line}{_quotes(database, sql, error)}")


def _other_view(run: Queried, name: str, views: Mapping[str, Seq[str]]) -> str:
    """The nearest view, the names of all, and the command that adds this one."""
    lacking = "" if run.complete else "; more when the search has ended"
    if name in ADDED_BY:
        lacking += f"; 'oracle {ADDED_BY[name]} {run.folder}' adds {name}"
    nearest = "" if name in ADDED_BY else nearest_hint(name, views)
    return f"{nearest}; available: {', '.join(views)}{lacking}"


def _other_column(line: str, sql: str, views: Mapping[str, Seq[str]]) -> str:
    """What to write instead of an unknown column: another name of it, or a view that has it; columns of the views."""
    named = [view for view in views if re.search(rf"\b{view}\b", sql, re.IGNORECASE)] or list(views)
    columns = list(dict.fromkeys(column for view in named for column in views[view]))
    quoted = re.search(r'"([^"]+)" not found|column named "([^"]+)"', line)
    name = next(filter(None, quoted.groups()), "") if quoted else ""
    hint = nearest_hint(name, columns)
    if (other := PRINTED.get(name.lower().replace(" ", "_"))) in columns:
        hint = f"; tables print {other!r} as '{name}'"
    elif having := [view for view in views if name in views[view] and view not in named]:
        join = f": JOIN {having[0]} USING (sequence)" if "sequence" in {*columns} & {*views[having[0]]} else ""
        hint = f"; {' and '.join(having)} {'has' if len(having) == 1 else 'have'} it{join}"
    return f"{hint}; available: {', '.join(_listed(view, views[view]) for view in named)}"


def _listed(view: str, columns: Seq[str]) -> str:
    return f"{view} ({', '.join(columns)})"


def _quotes(database: duckdb.DuckDBPyConnection, sql: str, error: Exception) -> str:
    """A remedy if the parser stumbled over a reserved word that stands where a name does."""
    if not isinstance(error, duckdb.ParserException):
        return ""
    found = database.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    reserved = {name for (name,) in found}
    columns = {name for (view,) in database.sql("SHOW TABLES").fetchall() for name in database.view(view).columns}
    standing = [word.lower() for word in re.findall(NAME, sql, re.IGNORECASE)]
    unquoted = [
        one for one in sorted(columns & reserved) if re.search(rf'(?<!["\w]){one}(?!["\w])', sql, re.IGNORECASE)
    ]
    for word in [*unquoted, *(word for word in standing if word in reserved - EXPRESSIONS)]:
        other = f", or use its other name, {UNRESERVED[word]}" if word in UNRESERVED else ""
        return f'; {word} is a reserved word of SQL: as a name, write it in double quotes, "{word}"{other}'
    return ""


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
