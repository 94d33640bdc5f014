"""The forms in which commands print their tables: for people, JSON, CSV, Markdown, LaTeX; and files of these."""

import argparse
import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TextIO

from oracle.cli.parsing import provenance_of
from oracle.cli.tables import Table, on_one_line, plain, show_line
from oracle.errors import InputError
from oracle.utils.text import printable, spreadsheet_text

if TYPE_CHECKING:
    from oracle.store import Run

__all__ = ["chosen_form", "csv_text", "give", "latex_text", "markdown_text", "save_tables", "write_csv"]

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "…": r"\ldots{}",
        **{char: f"\\{char}" for char in "&%$#_"},
    }
)
"""Characters with a meaning in LaTeX, or with another shape in its oldest encoding of fonts -> how they are written."""

MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>|~&$!#"})
"""Characters with a meaning in Markdown -> how they are written."""

MINUS = re.compile(r"(?<![^\s(])-(?=[\d.])")
"""A hyphen that is a number's sign."""

LATIN = 0x17F
"""Last of the Latin letters that every LaTeX knows."""

LONG = 60
"""Characters from which on a LaTeX column breaks its lines."""


def give(
    arguments: argparse.Namespace,
    tables: Seq[Table],
    *,
    whole: Callable[[], Any],
    show: Callable[[], None],
    detail: Table | None = None,
    run: "Run | None" = None,
    notes: Seq[str] = (),
) -> None:
    """Prints an answer in the form that the command line asks for, and saves it where `--save` says.

    Args:
        arguments: the command line, with the options of `oracle.cli.parsing.add_formats`.
        tables: for people; the first one is printed as CSV.
        whole: the complete answer as a JSON object.
        show: prints it for people.
        detail: records in more detail, printed as CSV instead of the first table.
        run: the run that the tables are of, whose origin is saved beside them.
        notes: what the tables lack, for standard error where neither `show` nor the JSON says it.
    """
    form = chosen_form(arguments)
    records = [detail, *tables] if detail else list(tables)
    if form == "json":
        print(json.dumps(plain(whole())))
    elif form == "csv":
        write_csv(sys.stdout, records[0].names, records[0].rows)
        if len(records) > 1 and arguments.save is None:
            others = ", ".join(table.name for table in records[1:])
            print(f"oracle: note: CSV holds one table, {records[0].name}; --save also writes {others}", file=sys.stderr)
    elif form:
        print("\n".join(WRITERS[form](table) for table in tables), end="")
    else:
        show()
    for note in notes if form not in (None, "json") else ():
        print(f"oracle: note: {printable(note)}", file=sys.stderr)
    if arguments.save is not None:
        paths = save_tables(arguments, tables, whole=whole, detail=detail, run=run)
        line = f"Saved: {', '.join(map(str, paths))}"
        if form:
            print(f"oracle: note: {printable(line)}", file=sys.stderr)
        else:
            show_line(line)


def chosen_form(arguments: argparse.Namespace) -> str | None:
    """The form that the command line asks for; None for people's."""
    return next((name for name in ("json", *WRITERS) if getattr(arguments, name)), None)


def save_tables(
    arguments: argparse.Namespace,
    tables: Seq[Table],
    *,
    whole: Callable[[], Any],
    detail: Table | None = None,
    run: "Run | None" = None,
) -> list[Path]:
    """Writes tables to the file of `--save`, in the form of its ending, with their origin beside it.

    CSV holds one table a file: further ones are written to NAME-TABLE.csv.

    Returns:
        The files, those of the origin included.

    Raises:
        InputError: if a file cannot be written.
    """
    from oracle.store.files import make_folder, write_whole

    path: Path = arguments.save
    form = path.suffix.lower()
    if form == ".json":
        texts = {path: json.dumps(plain(whole()), indent=1) + "\n"}
    elif form == ".csv":
        records = [detail, *tables] if detail else list(tables)
        names = [path, *(path.with_name(f"{path.stem}-{table.name}{path.suffix}") for table in records[1:])]
        texts = {name: csv_text(table) for name, table in zip(names, records, strict=True)}
    else:
        texts = {path: "\n".join((markdown_text if form == ".md" else latex_text)(table) for table in tables)}
    if not provenance_of(path).exists() and (taken := next((name for name in texts if name.exists()), None)):
        raise InputError(f"'{taken}' already exists, and --save did not write it; choose another --save or delete it")
    origin = json.dumps(_origin(arguments, run), indent=1, sort_keys=True, default=str) + "\n"
    texts[provenance_of(path)] = origin
    for name, text in texts.items():
        try:
            make_folder(name.parent)
            write_whole(name, partial(_write, text))
        except OSError as error:
            raise InputError(f"cannot write '{name}' ({error.strerror}); choose another --save") from error
    return list(texts)


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _origin(arguments: argparse.Namespace, run: "Run | None") -> dict[str, Any]:
    """What saved tables are of: command and options, the run's model, data and settings, versions; no folders."""
    from oracle.store.provenance import git_commit, versions

    options = {
        name: value
        for name, value in vars(arguments).items()
        if not callable(value) and name not in ("command", "save", "debug", "quiet") and value not in (None, False, [])
    }
    kept = ("model", "data", "config", "versions", "commit", "seed")
    manifest = {} if run is None else {name: run.manifest[name] for name in kept if name in run.manifest}
    about = {"command": arguments.command, "options": options, "versions": versions(), "commit": git_commit()}
    found = _without_folders({**about, "run": manifest} if manifest else about)
    assert isinstance(found, dict)
    return found


def _without_folders(value: Any) -> Any:
    """The value with the last part of each absolute path only: tables are sent to others."""
    if isinstance(value, Mapping):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(one) for one in value]
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str) and value.startswith(("/", "~/", "./", "../")):
        return PurePath(value).name
    return value


def csv_text(table: Table) -> str:
    """The records as CSV with a header; see `write_csv`."""
    out = io.StringIO(newline="")
    write_csv(out, table.names, table.rows)
    return out.getvalue()


def write_csv(out: TextIO, names: Seq[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes CSV with a header: lists and structures as JSON, missing values as empty cells; nothing else.

    Infinity is written as inf, which JSON cannot say. Texts neither control a terminal nor run as formulas; see
    `spreadsheet_text`.
    """
    writer = csv.writer(out, lineterminator="\n")
    shown = (lambda text: printable(spreadsheet_text(text))) if out.isatty() else spreadsheet_text
    writer.writerow([shown(name) for name in names])
    for row in rows:
        values = [row[name] if _endless(row[name]) else plain(row[name]) for name in names]
        cells = [json.dumps(value) if isinstance(value, (list, dict, bool)) else value for value in values]
        writer.writerow([shown(cell) if isinstance(cell, str) else cell for cell in cells])


def _endless(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def markdown_text(table: Table) -> str:
    """The table in GitHub's Markdown."""
    headings = [_markdown(column.heading.replace("\n", " ")) for column in table.columns]
    rules = ["---:" if column.is_number else "---" for column in table.columns]
    lines = [headings, rules, *([_markdown(text) for text in line] for line in table.cells())]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"\n{_markdown(note)}\n" for note in table.notes)


def _markdown(text: str) -> str:
    line = on_one_line(text)
    inner = line.lstrip(" ")
    return "&emsp;" * ((len(line) - len(inner)) // 2) + inner.rstrip(" ").translate(MARKDOWN)


def latex_text(table: Table) -> str:
    """The table as a `tabular` of LaTeX with the rules of the package booktabs.

    Every character with a meaning in LaTeX is escaped, so that it compiles whatever the texts are; a comment says so if
    letters need XeLaTeX or LuaLaTeX with a font that has them.
    """
    headings = [_latex(column.heading.replace("\n", " "), False) for column in table.columns]
    lines = [
        [_latex(text, column.is_number) for text, column in zip(line, table.columns, strict=True)]
        for line in table.cells()
    ]
    kinds = [
        "r" if column.is_number else r"p{0.4\linewidth}" if any(len(line[place]) > LONG for line in lines) else "l"
        for place, column in enumerate(table.columns)
    ]
    body = [" & ".join(line) + r" \\" for line in lines]
    head = " & ".join(headings) + r" \\"
    needs = "% needs \\usepackage{booktabs}"
    if any(ord(char) > LATIN for line in [head, *body] for char in line):
        needs += ", and XeLaTeX or LuaLaTeX with a font for letters beyond Latin"
    notes = [f"% {on_one_line(note)}" for note in table.notes]
    begin = f"\\begin{{tabular}}{{{''.join(kinds)}}}"
    return "\n".join(
        [needs, begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", *notes, ""]
    )


def _latex(text: str, is_number: bool) -> str:
    line = on_one_line(text)
    inner = line.lstrip(" ")
    escaped = inner.rstrip(" ").translate(LATEX)
    if is_number:
        escaped = MINUS.sub("$-$", escaped).replace(" - ", "--").replace(r" \%", r"\,\%")
    # In braces, because `[` and `*` after a line's end would be read as its options.
    indent = r"\quad " * ((len(line) - len(inner)) // 2)
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) and not indent else indent + escaped


WRITERS: dict[str, Callable[[Table], str]] = {"csv": csv_text, "markdown": markdown_text, "latex": latex_text}
"""Forms beside JSON -> functions that write a table."""
