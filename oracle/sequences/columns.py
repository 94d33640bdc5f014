"""The columns of a data set that form a sequence, and the conversion of records to sequences."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from oracle.errors import InputError
from oracle.sequences.records import Record, as_text, is_missing
from oracle.types import Sequence
from oracle.utils.validation import check_types

__all__ = ["Columns", "to_sequences"]

_DEFAULT_REFERENCES = ("references", "reference")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that form a sequence.

    A name may be a path into nested values, such as `instances.0.output`: keys of dicts and indices of lists, joined by
    dots. A key that itself contains the dot takes precedence. A column named here must exist in every row; default
    columns are used where they exist.

    Attributes:
        prompt: column of the prompt; not used with a template.
        template: prompt text with columns in braces, such as `"{instruction}\\n\\n{instances.0.input}"`. `{{` and `}}`
            are literal braces; null is empty text; trailing white space is stripped.
        references: columns of the references, each a text or a list of texts; numbers become text, empty texts are
            omitted. Default: `references`, or else `reference`. A CSV cell may hold a list as JSON, starting with `[`.
        choices: column of the list of choices. Default: `choices`.
        answer: column of the right choice: its text, its letter (`A` to `Z`) or its index from 0, tried in this order
            for text. Default: `answer`, where there are choices.
        id: column of the id. Default: `id`, or else the zero-padded row number, from 0. An empty string numbers the
            rows even if there is a column `id`.
        task: column of the task name. Default: `task`, or else no task.
    """

    prompt: str = "prompt"
    template: str | None = None
    references: tuple[str, ...] = ()
    choices: str | None = None
    answer: str | None = None
    id: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.references, str):
            raise InputError(
                f"references must be a tuple of columns, not the text {self.references!r}: write ({self.references!r},)"
            )
        check_types(self)
        if self.template is not None:
            _check_template(self.template)


def _check_template(template: str) -> None:
    matches = list(_PLACEHOLDER.finditer(template))
    if any(match[0] in ("{", "}") for match in matches):
        raise InputError(f"template {template!r} has an unpaired brace: write {{{{ or }}}} for a literal brace")
    if not any(match[1] for match in matches):
        raise InputError(f"template {template!r} must name a column in braces, such as {{instruction}}")


def to_sequences(records: Iterable[Record], columns: Columns) -> list[Sequence]:
    """One sequence per record.

    Raises:
        InputError: if a record lacks a named column or has no text in it, or two records have the same id; names the
            rows.
    """
    sequences: list[Sequence] = []
    places: dict[str, str] = {}
    for row, record in enumerate(records):
        choices = _choices(record, columns)
        sequence = Sequence(
            id=_id(record, row, columns),
            prompt=_prompt(record, columns),
            references=_references(record, columns),
            choices=choices,
            answer=_answer(record, columns, choices),
            task=_task(record, columns),
        )
        if sequence.id in places:
            raise InputError(
                f"ids must be unique, but {places[sequence.id]} and {record.where} both have id "
                f"{sequence.id!r}: name another id column, or an empty name to number the rows"
            )
        places[sequence.id] = record.where
        sequences.append(sequence)
    return sequences


def _prompt(record: Record, columns: Columns) -> str:
    if columns.template is not None:
        prompt = _fill(columns.template, record)
    else:
        value = record.require(columns.prompt)
        if isinstance(value, int | float):
            raise InputError(
                f"{record.where}: prompt {columns.prompt!r} must be text, not {value!r}: name another column"
            )
        prompt = as_text(value, f"prompt {columns.prompt!r}", record.where)
    if not prompt.strip():
        raise InputError(f"{record.where}: the prompt is empty: give it text, or remove the row")
    return prompt


def _fill(template: str, record: Record) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        value = record.require(match[1])
        return "" if is_missing(value) else as_text(value, f"column {match[1]!r}", record.where)

    return _PLACEHOLDER.sub(replacement, template).rstrip()


def _unpacked(record: Record, value: object) -> object:
    """The list in a CSV cell that holds JSON; any other value unchanged."""
    if not (record.cells and isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        # "[1] Smith (2004)" is a text, not an invalid list.
        return value


def _references(record: Record, columns: Columns) -> tuple[str, ...]:
    if columns.references:
        found = [(name, record.require(name)) for name in columns.references]
    else:
        found = [(name, record.get(name)) for name in _DEFAULT_REFERENCES]
        found = [(name, value) for name, value in found if not is_missing(value)][:1]
    texts: list[str] = []
    for name, packed in found:
        value = _unpacked(record, packed)
        items = value if isinstance(value, list) else [value]
        what = f"reference {name!r}"
        texts += [as_text(item, what, record.where) for item in items if not is_missing(item)]
    return tuple(text for text in texts if text.strip())


def _choices(record: Record, columns: Columns) -> tuple[str, ...]:
    name, value = _value(record, columns.choices, "choices")
    if is_missing(value) or (record.cells and value == ""):
        return ()
    items = _unpacked(record, value)
    if not isinstance(items, list):
        raise InputError(
            f"{record.where}: choices {name!r} must be a list of texts, not {type(items).__name__}: "
            "name a column of lists (as JSON in CSV cells)"
        )
    return tuple(as_text(item, f"choice in {name!r}", record.where) for item in items)


def _answer(record: Record, columns: Columns, choices: tuple[str, ...]) -> int | None:
    name, value = _value(record, columns.answer, "answer")
    if is_missing(value) or (record.cells and value == ""):
        return None
    if not choices:
        if columns.answer:
            raise InputError(f"{record.where}: answer {name!r} needs choices, but the row has none: add them")
        return None
    index = _index_of(value, choices)
    if index is None or not 0 <= index < len(choices):
        raise InputError(
            f"{record.where}: answer {name!r} must be one of the {len(choices)} choices, its letter or "
            f"its index from 0, not {value!r:.80}"
        )
    return index


def _index_of(value: object, choices: tuple[str, ...]) -> int | None:
    if isinstance(value, str):
        wanted = value.strip()
        texts = [choice.strip() for choice in choices]
        if wanted in texts:
            return texts.index(wanted)
        if re.fullmatch(r"[A-Z]", wanted):
            return ord(wanted) - ord("A")
        return int(wanted) if re.fullmatch(r"[0-9]{1,9}", wanted) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _id(record: Record, row: int, columns: Columns) -> str:
    if columns.id != "":
        name, value = _value(record, columns.id, "id")
        text = "" if is_missing(value) else as_text(value, f"id {name!r}", record.where)
        if text:
            return text
        if columns.id:
            raise InputError(f"{record.where}: id {name!r} is empty: fill it, or name no id column")
    return f"{row:05d}"


def _task(record: Record, columns: Columns) -> str:
    name, value = _value(record, columns.task, "task")
    return "" if is_missing(value) else as_text(value, f"task {name!r}", record.where)


def _value(record: Record, named: str | None, default: str) -> tuple[str, object]:
    """A column's name and value: a named column is required, the default one optional."""
    return (named, record.require(named)) if named else (default, record.get(default))
