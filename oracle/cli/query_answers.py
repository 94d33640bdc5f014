"""The queries of `oracle query`: each returns a JSON object, rows for CSV, and a function that prints both."""

import argparse
import itertools
import json
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from analysis import queries as query
from analysis.comparison import compare_two
from analysis.formatting import interval_name
from oracle.cli.tables import (
    percent,
    plain,
    show_budgets,
    show_csv,
    show_line,
    show_oracle,
    show_rows,
    show_sequence,
)
from oracle.errors import InputError
from oracle.store import Run
from oracle.store.query_process import stream

__all__ = ["Answer", "ask", "show_sql"]

MAX_ROWS = 10_000
"""Maximum number of rows in a table on the terminal."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one query.

    Attributes:
        whole: the complete answer as one JSON object.
        rows: its table.
        columns: of the table.
        show: prints it on the terminal.
    """

    whole: dict[str, Any]
    rows: Seq[dict[str, Any]]
    columns: Seq[str]
    show: Callable[[], None]


def ask(arguments: argparse.Namespace) -> Answer:
    """The answer to the query on the command line.

    Raises:
        InputError: if options conflict, or the query rejects its values.
    """
    name = _asked(arguments)
    if name is None:
        return _budgets(arguments) if arguments.budget is None else _oracle(arguments)
    return QUESTIONS[name](arguments)


def show_sql(arguments: argparse.Namespace) -> None:
    """Prints the answer to `--sql` as it is computed: as CSV, as JSON, or its first rows as a table.

    Raises:
        InputError: if options conflict, the SQL fails, or it exceeds its limits; some rows may be printed by then.
    """
    _asked(arguments)
    with stream(arguments.folder, arguments.sql, seconds=arguments.seconds, memory_mib=arguments.memory) as found:
        columns = found.schema.names
        rows = (row for table in found for row in table.to_pylist())
        if arguments.csv:
            show_csv(columns, rows)
        elif arguments.json:
            print(f'{{"columns": {json.dumps(columns)}, "rows": [', end="")
            for place, row in enumerate(rows):
                print(", " if place else "", json.dumps(plain(row)), sep="", end="")
            print("]}")
        else:
            shown = list(itertools.islice(rows, MAX_ROWS + 1))
            show_rows(columns, shown[:MAX_ROWS])
            if len(shown) > MAX_ROWS:
                show_line(f"Only the first {MAX_ROWS} rows; --csv and --json print all of them.")


def _asked(arguments: argparse.Namespace) -> str | None:
    """The option that selects the query; raises `InputError` if others exclude it."""
    # 0 counts as given: the query rejects it.
    names = (*QUESTIONS, "sql")
    asked = [name for name in names if (value := getattr(arguments, name)) is not None and value is not False]
    name = asked[0] if asked else None
    if arguments.budget is not None and name not in (None, "sequence"):
        raise InputError(f"--budget works alone or with --sequence, not with {_option(name)}; omit one")
    if arguments.criterion is not None and name == "sql":
        raise InputError("--sql reads metrics as columns of evaluations: name them in the SQL and omit --criterion")
    if arguments.cost is not None and name in ("allocations", "against", "sql"):
        raise InputError(f"{_option(name)} reads the costs that the search minimised: omit --cost")
    return name


def _option(name: str | None) -> str:
    return f"--{str(name).replace('_', '-')}"


def _budgets(arguments: argparse.Namespace) -> Answer:
    rows, run = query.budgets(arguments.folder, arguments.criterion, arguments.cost), Run.open(arguments.folder)
    measure = query.measure(arguments.folder, arguments.cost)
    proven = query.proven(rows)
    trivial, gap = proven["certified"] - proven["certified_informative"], proven["mean_gap"]

    def show() -> None:
        show_budgets(rows, run.units, measure)
        zero = f" ({trivial} of them tell nothing)" if trivial else ""
        others = "" if gap is None else f"; mean gap of the others {gap:.4g} {measure}"
        show_line(f"Proven minimal: {proven['certified']} of {len(rows)}{zero}{others}.")

    return Answer(whole={"sequences": rows, **proven}, rows=rows, columns=_names(rows), show=show)


def _at_most(arguments: argparse.Namespace) -> Answer:
    every = query.budgets(arguments.folder, arguments.criterion, arguments.cost)
    measure = query.measure(arguments.folder, arguments.cost)
    rows, units = query.at_most(every, arguments.at_most), Run.open(arguments.folder).units

    def show() -> None:
        if rows:
            show_budgets(rows, units, measure)
        show_line(f"{len(rows)} of {len(every)} sequences need at most {100 * arguments.at_most:.1f} %.")

    whole = {"at_most": arguments.at_most, "of": len(every), "sequences": rows}
    return Answer(whole=whole, rows=rows, columns=_names(every), show=show)


def _by_task(arguments: argparse.Namespace) -> Answer:
    return _table(
        "tasks", query.by_task(query.budgets(arguments.folder, arguments.criterion, arguments.cost, statistical=False))
    )


def _allocations(arguments: argparse.Namespace) -> Answer:
    return _table("allocations", query.allocations(arguments.folder, arguments.allocations, arguments.criterion))


def _sequence(arguments: argparse.Namespace) -> Answer:
    answer = query.sequence_frontier(
        arguments.folder, arguments.sequence, arguments.budget, arguments.criterion, arguments.cost
    )
    measure = query.measure(arguments.folder, arguments.cost)
    units, rows = Run.open(arguments.folder).units, answer["frontier"]
    return Answer(whole=answer, rows=rows, columns=_names(rows), show=lambda: show_sequence(answer, units, measure))


def _oracle(arguments: argparse.Namespace) -> Answer:
    answer = query.oracle_at(arguments.folder, arguments.budget, arguments.criterion, arguments.cost)
    measure = query.measure(arguments.folder, arguments.cost)
    units, rows = Run.open(arguments.folder).units, answer["assignment"]
    return Answer(whole=answer, rows=rows, columns=_names(rows), show=lambda: show_oracle(answer, units, measure))


def _against(arguments: argparse.Namespace) -> Answer:
    answer = compare_two(arguments.folder, arguments.against, arguments.criterion)
    rows = answer["sequences"]

    def show() -> None:
        show_rows(_names(rows), rows)
        for name, (mine, theirs) in answer["settings"].items():
            show_line(f"{name.replace('_', ' ')}: {mine}; against: {theirs}")
        ends, told = answer["interval"], answer["informative"]
        if not told:
            show_line(
                f"None of the {answer['shared']} shared sequences tells something in both runs: no mean is stated."
            )
            return
        interval = f" ({interval_name(told)} {_points(ends[0])} to {_points(ends[1])})" if ends else ""
        show_line(
            f"Mean over the {told} of {answer['shared']} shared sequences that tell something in both runs, by "
            f"{answer['criterion']}: {percent(answer['fraction'])} against {percent(answer['against'])}, difference "
            f"{_points(answer['difference'])} points{interval}, p = {answer['p']:.2g} (Wilcoxon)."
        )
        show_line(
            f"Lower on {answer['lower']}, equal on {answer['equal']}, higher on {answer['higher']}; "
            f"zero quality of the full model on {answer['zero_quality']} of the shared ones."
        )

    return Answer(whole=answer, rows=rows, columns=_names(rows), show=show)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _table(name: str, rows: Seq[dict[str, Any]]) -> Answer:
    columns = _names(rows)
    return Answer(whole={name: rows}, rows=rows, columns=columns, show=lambda: show_rows(columns, rows))


def _names(rows: Seq[dict[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else []


QUESTIONS: dict[str, Callable[[argparse.Namespace], Answer]] = {
    "sequence": _sequence,
    "at_most": _at_most,
    "by_task": _by_task,
    "allocations": _allocations,
    "against": _against,
}
"""Queries by the option that selects them."""
