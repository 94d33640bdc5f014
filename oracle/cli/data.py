"""`oracle data`: what a search would read from a file."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oracle.cli.config_file import add_config, config_run
from oracle.cli.data_options import DATA, add_columns, add_extract, add_presets, add_reading, add_tasks, given_settings
from oracle.cli.parsing import Parser, Settings, add_prompt, add_trust, command
from oracle.cli.search import search_parser
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
    parser.add_argument("data", metavar="FILE", nargs="?", help=f"{DATA}; or the bundled '{defaults.data}'")
    parser.add_argument(
        "--presets", nargs="?", const="", metavar="NAME", help="list the presets and their data, or show one in full"
    )
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="number of sequences shown, or in the table")
    what = Settings(parser, defaults)
    what.add("--model", help="whose tokenizer and chat template are used: hub id, local folder, or the embedded model")
    add_trust(what)
    add_presets(what)
    parser.config_options, parser.config_runs = search_parser, True
    add_config(parser, "; those of a search that do not concern its data are ignored")
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
    from oracle.cli.tables import of_records, show_line
    from oracle.config import SearchConfig
    from oracle.errors import InputError
    from oracle.pipeline.data import preview

    if arguments.presets is not None:
        _show_presets(arguments)
        return 0
    if arguments.rows < 0:
        raise InputError(f"--rows needs at least 0, not {arguments.rows}")
    if arguments.data is None:
        del arguments.data
        if arguments.config_file is None:
            raise InputError("oracle data needs FILE, or --config with a file of settings: give one of them")
    base, template = SearchConfig(), config_run(arguments.config_file)
    if template:
        from oracle.store import Run

        base = replace(SearchConfig.from_dict(Run.open(template).manifest["config"]), trust_remote_code=False)
    found = preview(replace(base, **given_settings(arguments, base)))

    def show() -> None:
        if preset := getattr(arguments, "preset", None):
            show_line(f"Settings of {preset}")
        _show(found, arguments.rows)

    table = of_records("sequences", found.rows(arguments.rows), FIELDS)
    give(arguments, [table], whole=lambda: found.to_dict(arguments.rows), show=show)
    return 1 if found.problems else 0


def _show_presets(arguments: argparse.Namespace) -> None:
    """Prints all presets with a line each, or one as YAML."""
    import yaml

    from oracle.cli.formats import give
    from oracle.cli.tables import of_records, show_line, show_table
    from oracle.config import PRESET
    from oracle.presets import preset_settings, read_presets
    from oracle.sequences.load import PRESETS, bundled_file

    known = read_presets(*getattr(arguments, "preset_files", ()))
    name = arguments.presets.removeprefix(PRESET)
    if name:
        preset_settings(f"{PRESET}{name}", known)
    shown = [known[name]] if name else list(known.values())
    rows = [
        {"preset": one.name, "data": one.settings["data"], "criterion": one.settings.get("criterion")} for one in shown
    ]
    table = of_records("presets", rows, ("preset", "data", "criterion"))

    def show() -> None:
        if name:
            whole = {name: {"about": shown[0].about, **shown[0].settings}}
            for line in yaml.safe_dump(whole, sort_keys=False, allow_unicode=True).splitlines():
                show_line(line)
            return
        show_table(table)
        show_line(f"Written in '{bundled_file(PRESETS)}'; --presets NAME shows one, --preset-file adds your own.")

    give(arguments, [table], whole=lambda: {one.name: {"about": one.about, **one.settings} for one in shown}, show=show)


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
