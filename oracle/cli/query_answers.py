"""The queries of `oracle query`: each returns a JSON object, tables, and a function that prints them."""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import analysis
from analysis import queries as query
from analysis.comparison import compare_two
from analysis.formatting import counted, interval_text, percent
from oracle.allocations import compact
from oracle.cli.formats import chosen_form, give, write_csv
from oracle.cli.run_tables import (
    assignment_table,
    budgets_table,
    cost_text,
    frontier_table,
    kept_table,
    show_noted,
    show_oracle,
    show_sequence,
    show_summary,
    summary_tables,
    tasks_table,
)
from oracle.cli.tables import Column, Table, counts, of_records, plain, shares, show_line, show_table, words
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
        tables: its tables.
        show: prints it on the terminal.
        notes: what the tables lack.
    """

    whole: dict[str, Any]
    tables: Seq[Table]
    show: Callable[[], None]
    notes: Seq[str] = ()


def ask(arguments: argparse.Namespace) -> Answer:
    """The answer to the query on the command line.

    Raises:
        InputError: if options conflict, or the query rejects its values.
    """
    name = _asked(arguments)
    if arguments.kept is not None:
        return _kept(arguments)
    if name is None:
        return _budgets(arguments) if arguments.budget is None else _oracle(arguments)
    return QUESTIONS[name](arguments)


def show_sql(arguments: argparse.Namespace) -> None:
    """Prints the answer to `--sql` as it is computed: as CSV, as JSON, or its first rows as a table.

    Raises:
        InputError: if options conflict, the SQL fails, or it exceeds its limits; some rows may be printed by then.
    """
    _asked(arguments)
    Run.open(arguments.folder)  # here, since the process of the query has another folder
    form = chosen_form(arguments)
    with stream(arguments.folder, arguments.sql, seconds=arguments.seconds, memory_mib=arguments.memory) as found:
        columns = found.schema.names
        rows = (row for table in found for row in table.to_pylist())
        if arguments.save is None and form == "csv":
            write_csv(sys.stdout, columns, rows)
        elif arguments.save is None and form == "json":
            print(f'{{"columns": {json.dumps(columns)}, "rows": [', end="")
            for place, row in enumerate(rows):
                print(", " if place else "", json.dumps(plain(row)), sep="", end="")
            print("]}")
        else:
            shown = list(itertools.islice(rows, MAX_ROWS + 1))
            _show_rows(arguments, columns, shown)


def _show_rows(arguments: argparse.Namespace, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Prints the first rows of a result, and says if there are more."""
    table = of_records("rows", rows[:MAX_ROWS], columns)
    give(
        arguments,
        [table],
        whole=lambda: {"columns": columns, "rows": table.rows},
        show=lambda: show_table(table),
        run=Run.open(arguments.folder),
    )
    if len(rows) > MAX_ROWS:
        line = f"Only the first {MAX_ROWS:,} rows; --csv and --json without --save print all of them."
        if chosen_form(arguments) is None:
            show_line(line)
        else:
            print(f"oracle: note: {line}", file=sys.stderr)


def _asked(arguments: argparse.Namespace) -> str | None:
    """The option that selects the query; raises `InputError` if others exclude it."""
    # 0 counts as given: the query rejects it.
    names = (*QUESTIONS, "sql")
    asked = [name for name in names if (value := getattr(arguments, name)) is not None and value is not False]
    name = asked[0] if asked else None
    if arguments.kept is not None and (name not in (None, "by_task") or arguments.budget is not None):
        other = "--budget" if arguments.budget is not None else _option(name)
        raise InputError(f"--kept works alone or with --by-task, not with {other}; omit one")
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
    table = budgets_table(rows, run.units, measure)

    def show() -> None:
        show_noted(table)
        zero = f" ({trivial} of them {'tells' if trivial == 1 else 'tell'} nothing)" if trivial else ""
        others = "" if gap is None else f"; mean gap of the others {cost_text(gap, measure)} {measure}"
        so_far = "" if run.complete else " with outcomes so far"
        show_line(f"Proven minimal: {proven['certified']} of {len(rows)}{so_far}{zero}{others}.")

    return Answer(whole={"sequences": rows, **proven}, tables=[table], show=show)


def _at_most(arguments: argparse.Namespace) -> Answer:
    every = query.budgets(arguments.folder, arguments.criterion, arguments.cost)
    measure = query.measure(arguments.folder, arguments.cost)
    rows, units = query.at_most(every, arguments.at_most, measure), Run.open(arguments.folder).units
    table = budgets_table(rows, units, measure, fields=_names(every))

    def show() -> None:
        if rows:
            show_noted(table)
        need = "needs" if len(every) == 1 else "need"
        show_line(f"{len(rows)} of {counted(len(every))} {need} at most {percent(arguments.at_most)}.")

    whole = {"at_most": arguments.at_most, "of": len(every), "sequences": rows}
    return Answer(whole=whole, tables=[table], show=show)


def _by_task(arguments: argparse.Namespace) -> Answer:
    rows = query.by_task(query.budgets(arguments.folder, arguments.criterion, arguments.cost, statistical=False))
    return _table({"tasks": rows}, tasks_table(rows))


def _summary(arguments: argparse.Namespace) -> Answer:
    if arguments.criterion is not None or arguments.cost is not None:
        raise InputError("--summary is of the run's own criterion and cost; omit --criterion and --cost")
    summary = Run.open(arguments.folder).summary(whole=True)
    rows = query.budgets(arguments.folder, statistical=False)
    return Answer(whole=summary, tables=summary_tables(summary, rows), show=lambda: show_summary(summary, rows))


def _allocations(arguments: argparse.Namespace) -> Answer:
    rows = query.allocations(arguments.folder, arguments.allocations, arguments.criterion)
    measure = query.measure(arguments.folder)
    columns = [
        Column(heading="allocation", text=lambda row: compact(row["allocation"]), is_number=False),
        Column(heading="cost", text=lambda row: cost_text(row["cost"], measure)),
        shares("fraction", "fraction"),
        *(counts(name, name) for name in ("sequences", "nonzero", "tried")),
        shares("share", "share"),
    ]
    notes = [
        "sequences: those on which it meets the criterion; nonzero: of these, the full model scores above zero; tried: "
        "those on which it was tried (on others its quality is unknown); share: sequences over all"
    ]
    table = Table(name="allocations", rows=rows, columns=columns, notes=notes)
    return Answer(whole={"allocations": rows}, tables=[table], show=lambda: show_noted(table))


def _sequence(arguments: argparse.Namespace) -> Answer:
    answer = query.sequence_frontier(
        arguments.folder, arguments.sequence, arguments.budget, arguments.criterion, arguments.cost
    )
    measure, units = query.measure(arguments.folder, arguments.cost), Run.open(arguments.folder).units
    table = frontier_table(answer, units, measure)
    return Answer(whole=answer, tables=[table], show=lambda: show_sequence(answer, units, measure))


def _oracle(arguments: argparse.Namespace) -> Answer:
    answer = query.oracle_at(arguments.folder, arguments.budget, arguments.criterion, arguments.cost)
    measure, units = query.measure(arguments.folder, arguments.cost), Run.open(arguments.folder).units
    table = assignment_table(answer, units, measure)
    return Answer(whole=answer, tables=[table], show=lambda: show_oracle(answer, units, measure))


def _against(arguments: argparse.Namespace) -> Answer:
    answer = compare_two(arguments.folder, arguments.against, arguments.criterion)
    columns = [
        words("sequence", "sequence"),
        words("task", "task"),
        shares("fraction", "fraction"),
        shares("against", "against"),
        Column(heading="difference, points", text=lambda row: _points(row["difference"])),
        Column(heading="tells something", text=lambda row: "yes" if row["informative"] else "no", is_number=False),
    ]
    table = Table(name="sequences", rows=answer["sequences"], columns=columns)

    def show() -> None:
        show_table(table)
        for name, (mine, theirs) in answer["settings"].items():
            show_line(f"{name.replace('_', ' ')}: {mine}; against: {theirs}")
        ends, told = answer["interval"], answer["informative"]
        shared = counted(answer["shared"], "shared sequence")
        if not told:
            show_line(f"None of the {shared} tells something in both runs: no mean is stated.")
            return
        interval = f" ({interval_text(told, f'{_points(ends[0])} to {_points(ends[1])}')})" if ends else ""
        show_line(
            f"Mean over the {told} of {shared} that {'tells' if told == 1 else 'tell'} something in both runs, by "
            f"{answer['criterion']}: {percent(answer['fraction'])} against {percent(answer['against'])}, difference "
            f"{_points(answer['difference'])} points{interval}, p = {answer['p']:.2g} (Wilcoxon)."
        )
        show_line(
            f"Lower on {answer['lower']}, equal on {answer['equal']}, higher on {answer['higher']}; "
            f"zero quality of the full model on {answer['zero_quality']} of the shared ones."
        )

    return Answer(whole=answer, tables=[table], show=show)


def _kept(arguments: argparse.Namespace) -> Answer:
    from analysis.luck.kept import ALL, BUDGETS, MACRO, quality_kept  # reads much, and no other query needs it

    if outside := [budget for budget in arguments.kept if not 0 <= budget <= 1]:
        experiment = analysis.load(arguments.folder, arguments.criterion, costs=arguments.cost)
        query.check_fraction(outside[0], "--kept", experiment.full_cost, experiment.measure)
    found = quality_kept(
        arguments.folder,
        arguments.kept or BUDGETS,
        criterion=arguments.criterion,
        costs=arguments.cost,
    )
    records = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    if not arguments.by_task:
        records = [row for row in records if row["over"] in (ALL, MACRO) and not row["task"]]
    records = sorted(records, key=lambda row: list(found.rows["over"]).index(row["over"]))
    table = kept_table(records, found)
    about = {"criterion": found.metric, "bar": found.bar, "resamples": found.resamples}
    whole = {**about, "permutations": found.permutations, "notes": found.notes, "rows": records}

    def show() -> None:
        show_noted(table)
        for note in found.notes:
            show_line(note)

    return Answer(whole=whole, tables=[table], show=show, notes=found.notes)


def _points(value: float) -> str:
    return f"{100 * value:+z.1f}"


def _table(whole: dict[str, Any], table: Table) -> Answer:
    return Answer(whole=whole, tables=[table], show=lambda: show_table(table))


def _names(rows: Seq[dict[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else []


QUESTIONS: dict[str, Callable[[argparse.Namespace], Answer]] = {
    "sequence": _sequence,
    "at_most": _at_most,
    "by_task": _by_task,
    "summary": _summary,
    "allocations": _allocations,
    "against": _against,
}
"""Queries by the option that selects them."""
