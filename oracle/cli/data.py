"""`oracle data`: what a search would read from a file."""

import argparse
from typing import TYPE_CHECKING, Any

from oracle.cli.data_options import DATA, add_columns, add_extract, add_reading, add_tasks, given_settings
from oracle.cli.parsing import Parser, Settings, add_prompt, add_trust, command
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.pipeline.data import Preview

__all__ = ["add_data"]

FIELDS = ("id", "task", "prompt", "prompt_tokens", "references", "choices", "answer")
"""Columns of the sequences."""


def add_data(commands: Any) -> None:
    """Adds `oracle data`."""
    command(
        commands,
        "data",
        _run_data,
        "Show what a search would read from a file: prompts as the model sees them, references, choices, and what each "
        "rule decided; loads a tokenizer, no model. Exit code 1 if a search would refuse it.",
        _add_data_options,
        tables=True,
    )


def _add_data_options(parser: Parser) -> None:
    from oracle.config import SearchConfig

    defaults = SearchConfig()
    parser.add_argument("data", metavar="FILE", help=f"{DATA}; or the bundled '{defaults.data}'")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="number of sequences shown, or in the table")
    what = Settings(parser, defaults)
    what.add("--model", help="whose tokenizer and chat template are used: hub id, local folder, or the embedded model")
    add_trust(what)
    what.add("--limit", type=int, help="maximum number of sequences, spread evenly over the tasks")
    what.add("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    what.add("--criterion", metavar="METRIC", help="metric that decides which columns are needed")
    what.add("--metrics", nargs="+", metavar="METRIC", help="further metrics that need columns")
    what.add("--max-new-tokens", type=int, help="maximum length of an output, in tokens")
    add_extract(what)
    add_columns(parser)
    add_prompt(parser.add_argument_group("how prompts are rendered"))
    add_reading(parser)
    add_tasks(parser)


def _run_data(arguments: argparse.Namespace) -> int:
    from oracle.cli.formats import give
    from oracle.cli.tables import of_records
    from oracle.config import SearchConfig
    from oracle.errors import InputError
    from oracle.pipeline.data import preview

    if arguments.rows < 0:
        raise InputError(f"--rows needs at least 0, not {arguments.rows}")
    found = preview(SearchConfig(**given_settings(arguments, SearchConfig())))
    table = of_records("sequences", found.rows(arguments.rows), FIELDS)
    give(arguments, [table], whole=lambda: found.to_dict(arguments.rows), show=lambda: _show(found, arguments.rows))
    return 1 if found.problems else 0


def _show(found: "Preview", rows: int) -> None:
    from rich.text import Text

    from analysis.formatting import average, counted
    from oracle.cli.tables import console, show_line

    facts = found.to_dict(0)
    tokens = facts["prompt_tokens"]
    lengths = (
        counted(tokens["least"], "token")
        if tokens["least"] == tokens["most"]
        else f"{average(tokens['least'])} to {counted(tokens['most'], 'token')}, median {average(tokens['median'])}"
    )
    show_line(f"{counted(facts['sequences'])}; prompts of {lengths}, by the tokenizer of {facts['model']}")
    if len(facts["tasks"]) > 1:
        show_line("Tasks: " + ", ".join(f"{name or '(none)'} {count}" for name, count in facts["tasks"].items()))
    for line in found.data.lines():
        show_line(f"Data: {line}")
    for line in found.notes:
        show_line(f"Note: {line}")
    out = console()
    for row in found.rows(rows):
        out.print()
        out.print(Text(printable(f"{row['id']}" + (f"  task {row['task']}" if row["task"] else "")), style="bold"))
        _block(out, f"prompt ({counted(row['prompt_tokens'], 'token')})", row["prompt"])
        for reference in row["references"]:
            _block(out, "reference", reference)
        for place, choice in enumerate(row["choices"]):
            _block(out, "right choice" if place == row["answer"] else "choice", choice)
    for problem in found.problems:
        show_line(f"A search would refuse this: {problem}")


def _block(out: Any, name: str, text: str) -> None:
    """Prints an untrusted text, line by line, behind its name."""
    from rich.text import Text

    out.print(Text(f"  {name}:", style="dim"))
    for line in text.split("\n"):
        out.print(Text(f"    {printable(line)}"))
