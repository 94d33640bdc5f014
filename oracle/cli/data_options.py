"""The options that say which data is searched and how it is read: of `oracle search` and `oracle data`."""

import argparse
from pathlib import Path
from typing import Any

from oracle.cli.config_file import in_file
from oracle.cli.parsing import Settings
from oracle.utils.consent import allow, is_function_name

__all__ = ["DATA", "add_columns", "add_extract", "add_presets", "add_reading", "add_tasks", "given_settings"]

DATA = (
    "JSONL, JSON, CSV, TSV, Parquet or text file, also compressed; a name or folder of the datasets library; "
    "lm-eval:TASK[,TASK...] for tasks of lm-evaluation-harness; preset:NAME for a benchmark with its columns and metric"
    " ('oracle data --presets' lists them), preset:NAME:DATA to read its data from another place"
)
"""What can be given as data."""


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name columns."""
    title = "columns of the data (nested ones with dots: instances.0.output; default: prompt, references, id, task)"
    columns = Settings(parser.add_argument_group(title))
    columns.add(
        "--prompt-column",
        metavar="COLUMN",
        help="column of the prompt, a text or a conversation (default: prompt, messages or conversations)",
    )
    columns.add(
        "--template",
        metavar="TEMPLATE",
        help=r"prompt built from several columns, such as '{instruction}\n\n{input}'",
    )
    columns.add(
        "--reference-column",
        action="append",
        metavar="COLUMN",
        help="column of references; repeatable",
    )
    columns.add(
        "--reference-file",
        action="append",
        metavar="FILE",
        help="text file with one reference per line, aligned with a text file of prompts; repeatable",
    )
    columns.add("--choices-column", metavar="COLUMN", help="column of the list of choices")
    letters = (
        "texts or letters: score the choices' texts, or the letters under which the template shows them, as MMLU does"
    )
    columns.add("--choices-as", metavar="WHAT", help=f"{letters} (default: texts)")
    answer = "column of the right choice: its label, text, letter or index from 0"
    columns.add("--answer-column", metavar="COLUMN", help=answer)
    columns.add("--id-column", metavar="COLUMN", help="column of the id")
    columns.add("--task-column", metavar="COLUMN", help="column of the task name")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how a file is read where its own rules do not."""
    from oracle.sequences.layout import FORMATS

    group = parser.add_argument_group(
        "how the data is read, where rules do not decide it ('oracle data FILE' shows it)"
    )
    reading = Settings(group)
    reading.add(
        "--skip-unusable",
        action="store_true",
        help="leave out rows that lack a prompt, a reference or an answer, and count them by reason",
    )
    formats = f"one of {', '.join(FORMATS)} (default: auto, by the suffix)"
    reading.add("--format", metavar="FORMAT", help=formats)
    separator = "separator of CSV cells: a character or tab, semicolon, pipe (default: found in the file)"
    reading.add("--separator", metavar="CHARACTER", help=separator)
    records = "key of the list of records in a JSON document, nested ones with dots: data.paragraphs.qas"
    reading.add("--records", metavar="KEY", help=records)
    reading.add(
        "--cells",
        metavar="RULE",
        help="texts that look like lists, such as \"['a', 'b']\", and whole numbers such as 18.0: auto: lists in CSV "
        "and TSV, refused elsewhere, 18 in columns of whole numbers; lists: always lists; text: as written",
    )
    answer = "how answers are read: label, text, letter, index (from 0) or number (as choices state it, or from 1)"
    reading.add("--answer-as", metavar="READING", help=answer)
    labels = "column of the choices' own labels (default: beside the choices)"
    reading.add("--labels-column", metavar="COLUMN", help=labels)


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Adds the options of tasks of lm-evaluation-harness."""
    from oracle.tasks.options import TaskOptions

    title = "tasks of lm-evaluation-harness (--data lm-eval:TASK; pip install 'layer-oracle[lm-eval]')"
    tasks = Settings(parser.add_argument_group(title))
    shots = "number of examples in each prompt (default: the task's own)"
    tasks.add("--num-fewshot", type=int, metavar="N", help=shots)
    seed = f"seed of the choice of examples (default: {TaskOptions().fewshot_seed}, the harness's)"
    tasks.add("--fewshot-seed", type=int, metavar="N", help=seed)
    tasks.add(
        "--apply-chat-template",
        action="store_true",
        help="let the harness apply the tokenizer's chat template, one turn per example",
    )
    tasks.add(
        "--include-path",
        action="append",
        metavar="DIR",
        help="folder with task files of your own, which take precedence over the harness's; repeatable",
    )


def add_extract(goal: Settings) -> None:
    """Adds `--extract`, `--choice-score` and `--target-delimiter`."""
    from oracle.metrics import CHOICE_SCORES, EXTRACTIONS

    goal.add(
        "--extract",
        metavar="PATTERN",
        help="compare only the answer in references and outputs: a regular expression, its first group if it has one "
        f"(last:PATTERN takes the last match), or {', '.join(EXTRACTIONS)}",
    )
    goal.add(
        "--choice-score",
        metavar="SCORE",
        help=f"how choice_accuracy compares log-likelihoods of choices, {', '.join(CHOICE_SCORES)}: in total, per "
        "character or per byte, as in lm-evaluation-harness, or per token",
    )
    goal.add(
        "--target-delimiter",
        metavar="TEXT",
        help="text between prompt and choice (default: as in lm-evaluation-harness, a space without a chat template, "
        "else nothing)",
    )


def add_presets(settings: Any) -> None:
    """Adds `--preset-file`."""
    about = "YAML file with presets of your own, in the form of the bundled ones, which it may replace; repeatable"
    settings.add("--preset-file", dest="preset_files", action="append", type=Path, metavar="FILE", help=about)


def given_settings(arguments: argparse.Namespace, base: Any) -> dict[str, Any]:
    """The settings of a `SearchConfig` that were given on the command line, those of its parts merged with `base`'s.

    The settings of a preset count as given where none are.
    """
    from oracle.config import PRESET
    from oracle.presets import preset_settings, read_presets
    from oracle.settings import assembled, unescaped

    flat = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    flat = {name: unescaped(name, value) for name, value in flat.items()}
    data = flat.get("data")
    if isinstance(data, str) and data.startswith(PRESET):
        preset = preset_settings(data, read_presets(*flat.get("preset_files", ())))
        own = {"data": preset["data"], **{name: value for name, value in preset.items() if name not in flat}}
        arguments.preset = f"{data}: " + ", ".join(f"{name} {value!r}" for name, value in own.items())
        flat |= own
    given = assembled(flat, base)
    # Consent to run a function is what the user typed, not what a file says.
    typed = {name: value for name, value in vars(arguments).items() if name not in in_file(arguments)}
    allow(*(name for name in (typed.get("criterion"), *typed.get("metrics", ())) if is_function_name(str(name))))
    return given
