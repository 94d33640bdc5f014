"""The options that say which data is searched and how it is read: of `oracle search` and `oracle data`."""

import argparse
from dataclasses import fields, replace
from typing import Any

from oracle.cli.parsing import Settings
from oracle.utils.consent import allow

__all__ = ["DATA", "add_columns", "add_extract", "add_reading", "add_tasks", "given_part", "given_settings"]

DATA = (
    "JSONL, JSON, CSV, TSV, Parquet or text file, also compressed; a name or folder of the datasets library; "
    "lm-eval:TASK[,TASK...] for tasks of lm-evaluation-harness"
)
"""What can be given as data."""

_PARTS = ("columns", "layout", "task_options")
"""Settings of `SearchConfig` that are dataclasses; the options of their fields have the dest PART_FIELD."""


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name columns."""
    title = "columns of the data (nested ones with dots: instances.0.output; default: prompt, references, id, task)"
    columns = Settings(parser.add_argument_group(title))
    columns.add(
        "--prompt-column",
        dest="columns_prompt",
        metavar="COLUMN",
        help="column of the prompt, a text or a conversation (default: prompt, messages or conversations)",
    )
    columns.add(
        "--template",
        dest="columns_template",
        metavar="TEMPLATE",
        help=r"prompt built from several columns, such as '{instruction}\n\n{input}'",
    )
    columns.add(
        "--reference-column",
        dest="columns_references",
        action="append",
        metavar="COLUMN",
        help="column of references; repeatable",
    )
    columns.add(
        "--reference-file",
        dest="reference_files",
        action="append",
        metavar="FILE",
        help="text file with one reference per line, aligned with a text file of prompts; repeatable",
    )
    columns.add("--choices-column", dest="columns_choices", metavar="COLUMN", help="column of the list of choices")
    answer = "column of the right choice: its label, text, letter or index from 0"
    columns.add("--answer-column", dest="columns_answer", metavar="COLUMN", help=answer)
    columns.add("--id-column", dest="columns_id", metavar="COLUMN", help="column of the id")
    columns.add("--task-column", dest="columns_task", metavar="COLUMN", help="column of the task name")


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
    reading.add("--format", dest="layout_format", metavar="FORMAT", help=formats)
    separator = "separator of CSV cells: a character or tab, semicolon, pipe (default: found in the file)"
    reading.add("--separator", dest="layout_separator", metavar="CHARACTER", help=separator)
    records = "key of the list of records in a JSON document, nested ones with dots: data.paragraphs.qas"
    reading.add("--records", dest="layout_records", metavar="KEY", help=records)
    reading.add(
        "--cells",
        dest="layout_cells",
        metavar="RULE",
        help="texts that look like lists, such as \"['a', 'b']\", and whole numbers such as 18.0: auto: lists in CSV "
        "and TSV, refused elsewhere, 18 in columns of whole numbers; lists: always lists; text: as written",
    )
    answer = "how answers are read: label, text, letter, index (from 0) or number (from 1)"
    reading.add("--answer-as", dest="columns_answer_as", metavar="READING", help=answer)
    labels = "column of the choices' own labels (default: beside the choices)"
    reading.add("--labels-column", dest="columns_labels", metavar="COLUMN", help=labels)


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Adds the options of tasks of lm-evaluation-harness."""
    from oracle.tasks.options import TaskOptions

    title = "tasks of lm-evaluation-harness (--data lm-eval:TASK; pip install 'layer-oracle[lm-eval]')"
    tasks = Settings(parser.add_argument_group(title))
    shots = "number of examples in each prompt (default: the task's own)"
    tasks.add("--num-fewshot", dest="task_options_num_fewshot", type=int, metavar="N", help=shots)
    seed = f"seed of the choice of examples (default: {TaskOptions().fewshot_seed}, the harness's)"
    tasks.add("--fewshot-seed", dest="task_options_fewshot_seed", type=int, metavar="N", help=seed)
    tasks.add(
        "--apply-chat-template",
        dest="task_options_apply_chat_template",
        action="store_true",
        help="let the harness apply the tokenizer's chat template, one turn per example",
    )
    tasks.add(
        "--include-path",
        dest="task_options_include_path",
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
        "character or per byte, as in lm-evaluation-harness, or per token (default: acc_tokens)",
    )
    goal.add(
        "--target-delimiter",
        metavar="TEXT",
        help="text between prompt and choice (default: as in lm-evaluation-harness, a space without a chat template, "
        "else nothing)",
    )


def given_settings(arguments: argparse.Namespace, base: Any) -> dict[str, Any]:
    """The settings of a `SearchConfig` that were given on the command line, those of its parts merged with `base`'s.

    With data that are tasks, the criterion, the stop texts and the length of outputs are the tasks' unless given.
    """
    from oracle.metrics import TASK_METRIC, is_function_name
    from oracle.tasks.options import OWN, task_names

    found = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    if "stop" in found:
        found["stop"] = tuple(_unescaped(text) for text in found["stop"])
    if "target_delimiter" in found:
        found["target_delimiter"] = _unescaped(str(found["target_delimiter"]))
    given = {field.name: found[field.name] for field in fields(base) if field.name in found}
    if task_names(str(given.get("data", ""))):
        # What is not given is up to the tasks.
        given.setdefault("criterion", TASK_METRIC)
        found["task_options_own"] = tuple(name for name in OWN if name not in given)
    allow(*(name for name in (given.get("criterion"), *given.get("metrics", ())) if is_function_name(str(name))))
    for part in _PARTS:
        own = getattr(base, part)
        if (changed := given_part(argparse.Namespace(**found), part, own)) != own:
            given[part] = changed
    return given


def given_part(arguments: argparse.Namespace, part: str, base: Any) -> Any:
    """A part of a `SearchConfig` with the settings that were given on the command line."""
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    changes: dict[str, Any] = {
        field.name: found[f"{part}_{field.name}"] for field in fields(base) if f"{part}_{field.name}" in found
    }
    if "template" in changes:
        changes["template"] = _unescaped(changes["template"])
    return replace(base, **changes)


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")
