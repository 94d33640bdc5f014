"""A run as a database: one SELECT over its tables, and nothing else within reach."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from oracle.errors import InputError
from oracle.store.files import damaged

__all__ = ["Parameters", "Queried", "Table", "select"]

Table: TypeAlias = pa.Table | ds.Dataset
"""A table in memory, or one that is read as far as a query needs it."""

Parameters = Seq[Any] | Mapping[str, Any]
"""Values of `?` in order, or of `$name` by name."""

LIMITS: dict[str, Any] = {"memory_limit": "2GB", "max_temp_directory_size": "16GB", "threads": 4}
"""What a query may use; what does not fit the memory goes to a temporary folder meanwhile."""

CLOSED: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}
"""No extension is fetched or loaded, and no variable of the calling program is a table."""

SELECTS = (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI)
"""SELECT, also as FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE; a PIVOT is several at once."""

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
"""Of each sequence the allocations that are better than all cheaper ones."""


@dataclass(frozen=True, kw_only=True)
class Queried:
    """What a query needs of a run.

    Attributes:
        folder: of the run, for messages.
        tables: what there is of its `sequences`, `evaluations` and `minimal_budgets`.
        criterion: column of the evaluations that is the quality of the view `frontiers`.
        units: number of units of the model.
        prices: cost of each unit; None where a unit costs 1 and nothing else does.
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


def select(run: Queried, sql: str, parameters: Parameters | None = None) -> pa.Table:
    """The answer to one SELECT over a run; decimals come as whole numbers or floats.

    Args:
        run: a run, complete or not.
        sql: see `Run.query`.
        parameters: what `?` or `$name` stand for.

    Raises:
        InputError: if it is no single SELECT or fails, or if the run is damaged.
    """
    with _database(run) as database:
        try:
            _check(database, sql)
            return _numbers(_fetch(database, sql, parameters))
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _refused(run, database, error) from error


@contextmanager
def _database(run: Queried) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of a run in a database that can reach nothing else: what is stored is handed to it by Arrow."""
    with tempfile.TemporaryDirectory(prefix="layer-oracle-") as scratch:
        database = duckdb.connect(":memory:", config={**LIMITS, **CLOSED, "temp_directory": scratch})
        with database:
            try:
                _create_views(database, run)
            except (duckdb.Error, KeyError, TypeError, ValueError) as error:
                raise damaged(run.folder, _line(error)) from error
            # From here on there are no files and no network, and no way back.
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            yield database


def _create_views(database: duckdb.DuckDBPyConnection, run: Queried) -> None:
    database.execute(f"CREATE MACRO cost_of(allocation) AS {_cost(run)}")
    full = f"cost_of(range({run.units}))"
    columns = {
        "sequences": "*",
        "evaluations": f"* REPLACE (cost_of(allocation) AS cost), cost_of(allocation) / {full} AS fraction",
        "minimal_budgets": f"*, upper / {full} AS fraction",
    }
    for name, source in run.tables.items():
        database.from_arrow(source).project(columns[name]).create_view(name)
    if "evaluations" in run.tables:
        database.execute(FRONTIERS.format(metric=_quoted(run.criterion)))


def _cost(run: Queried) -> str:
    """SQL for the cost of an allocation: as `oracle.costs.Costs.of_each` sums it up, price by price."""
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
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the SQL must be text, but its character {error.start + 1} is none") from error
    kinds = [statement.type for statement in database.extract_statements(sql)]
    if len(kinds) != 1 or kinds[0] not in SELECTS:
        found = " and ".join(kind.name for kind in kinds) or "none"
        raise InputError(f"one SELECT statement is required, not {found}: a run can be read and nothing else")


def _fetch(database: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters | None) -> pa.Table:
    # DuckDB does not see Ctrl-C while it waits for Arrow: another thread waits.
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: database.sql(sql, params=parameters).to_arrow_table())
        try:
            return answer.result()
        except KeyboardInterrupt:
            database.interrupt()
            raise


def _numbers(table: pa.Table) -> pa.Table:
    """The table with plain numbers, where DuckDB has decimals for sums of integers, and with distinct names."""
    for place, field in enumerate(table.schema):
        name, kind, column = field.name, field.type, table.column(place)
        if pa.types.is_decimal(kind):
            try:
                column = column.cast(pa.float64() if kind.scale else pa.int64())
            except pa.ArrowInvalid:
                column = column.cast(pa.float64())
        while name in table.column_names[:place]:
            name += "_"
        table = table.set_column(place, name, column)
    return table


def _refused(run: Queried, database: duckdb.DuckDBPyConnection, error: Exception) -> InputError:
    """The first line of what went wrong, and what there is where a name is wrong."""
    line = _line(error)
    if not isinstance(error, duckdb.Error) or "Arrow source failed" in line:
        return InputError(f"the run '{run.folder}' cannot be read ({line}); is it complete and undamaged?")
    if not re.search(r"Table with name|[Cc]olumn|Table \"", line):
        return InputError(f"the SQL fails: {line}")
    views = [name for (name,) in database.sql("SHOW TABLES").fetchall()]
    there = [f"{name} ({', '.join(database.view(name).columns)})" for name in views]
    lacking = "" if run.complete else "; the rest comes when the search ends"
    return InputError(f"the SQL fails: {line.rstrip('.!')}; there are {', '.join(there)}{lacking}")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
