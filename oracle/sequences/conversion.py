"""Conversion of the records of a data set to sequences; rules that decide something are recorded."""

import datetime
import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from oracle.errors import InputError
from oracle.sequences.answers import Question, resolve_answers
from oracle.sequences.columns import DEFAULT_PROMPT, PLACEHOLDER, Columns
from oracle.sequences.conversations import CONVERSATIONS, as_messages, prompt_and_answer, transcript
from oracle.sequences.layout import Cells
from oracle.sequences.notation import almost_list, as_list, is_python_object, json_kind
from oracle.sequences.records import Decisions, Record, UnusableRow, as_text, is_missing, is_whole
from oracle.types import Message, Sequence

__all__ = ["to_sequences"]

_DEFAULT_REFERENCES = ("references", "reference")
_WHOLE_CELL = re.compile(r"-?[0-9]+\.0")
_EMPTY_WORDS = frozenset(("nan", "none", "null", "n/a", "na", "<na>"))
_TEXT_KEYS = ("text", "texts")
_LABEL_KEYS = ("label", "labels", "key")


def to_sequences(
    records: Iterable[Record],
    columns: Columns,
    *,
    cells: Cells = "auto",
    decisions: Decisions | None = None,
    skipped: Counter[str] | None = None,
    keep: bool = False,
) -> list[Sequence]:
    """One sequence per record.

    Args:
        records: the rows.
        columns: the columns that form a sequence.
        cells: see `Layout.cells`.
        decisions: receives what was decided by rule.
        skipped: counts unusable rows, which are left out, by reason; None to raise at the first.
        keep: whether sequences keep their rows as `record`.

    Raises:
        InputError: if a record lacks a named column or has no text in it, or two records have the same id; names the
            rows.
    """
    return _Conversion(list(records), columns, cells, decisions or Decisions(), keep).sequences(skipped)


class _Conversion:
    """The conversion of all rows of a data set; some rules look at whole columns."""

    def __init__(self, records: Seq[Record], columns: Columns, cells: Cells, decisions: Decisions, keep: bool) -> None:
        self.keep = keep
        self.records = records
        self.columns = columns
        self.cells = cells
        self.decisions = decisions
        self._decided: dict[tuple[str, type], bool] = {}

    def sequences(self, skipped: Counter[str] | None) -> list[Sequence]:
        converted: list[tuple[Record, Sequence]] = []
        questions: list[Question] = []
        places: list[int] = []
        first_error: UnusableRow | None = None
        for row, record in enumerate(self.records):
            try:
                sequence, question = self._sequence(record, row)
            except UnusableRow as error:
                if skipped is None:
                    raise self._refused(error) from None
                skipped[error.reason] += 1
                first_error = first_error or error
                continue
            if question:
                questions.append(question)
                places.append(len(converted))
            converted.append((record, sequence))
        answers = dict(zip(places, resolve_answers(questions, self.columns.answer_as, self.decisions), strict=True))
        kept: list[tuple[Record, Sequence]] = []
        for place, (record, sequence) in enumerate(converted):
            answer = answers.get(place)
            if isinstance(answer, UnusableRow):
                if skipped is None:
                    raise self._refused(answer)
                skipped[answer.reason] += 1
                first_error = first_error or answer
            else:
                kept.append((record, replace(sequence, answer=answer)))
        if first_error and not kept:
            raise first_error
        self._check_ids(kept)
        return [sequence for _, sequence in kept]

    def _refused(self, error: UnusableRow) -> InputError:
        """The error about a row, with the option that leaves it out if any other row can be used."""
        for row, record in enumerate(self.records):
            try:
                self._sequence(record, row)
            except InputError:
                continue
            return InputError(f"{error}; --skip-unusable leaves such rows out")
        return error

    def _check_ids(self, converted: Seq[tuple[Record, Sequence]]) -> None:
        places: dict[str, str] = {}
        for record, sequence in converted:
            if sequence.id in places:
                raise InputError(
                    f"ids must be unique, but {places[sequence.id]} and {record.where} both have id "
                    f"{sequence.id!r}: name another --id-column, or an empty name to number the rows"
                )
            places[sequence.id] = record.where

    def _sequence(self, record: Record, row: int) -> tuple[Sequence, Question | None]:
        prompt, messages, answered = self._prompt(record)
        references = self._references(record)
        if answered is not None and answered.strip():
            if references:
                self._note("references are those of their column, not the last answer of the conversation", record)
            else:
                self._note("the last answer of a conversation is its reference", record)
                references = (answered,)
        choices, labels = self._choices(record)
        sequence = Sequence(
            id=self._id(record, row),
            prompt=prompt,
            references=references,
            choices=tuple(string.ascii_uppercase[: len(choices)]) if self.columns.choices_as == "letters" else choices,
            task=self._task(record),
            messages=messages,
            record=json.dumps(record.fields, default=str) if self.keep else "",
        )
        return sequence, self._question(record, choices, labels)

    def _note(self, rule: str, record: Record, shown: object = None) -> None:
        self.decisions.add(rule, record.where if shown is None else f"{record.where}: {shown!r:.80}")

    def _prompt(self, record: Record) -> tuple[str, tuple[Message, ...], str | None]:
        """The prompt, its conversation if it is more than one turn, and the answer that the conversation ends with."""
        columns = self.columns
        if columns.template is not None:
            prompt = self._fill(columns.template, record)
        else:
            name = columns.prompt
            if name == DEFAULT_PROMPT and is_missing(record.get(name)):
                name = next((other for other in CONVERSATIONS if not is_missing(record.get(other))), name)
                if name != DEFAULT_PROMPT:
                    rule = f"the prompts are the conversations in column {name!r} (--prompt-column decides)"
                    self._note(rule, record)
            value = record.require(name, "--prompt-column or --template")
            messages = self._conversation(record, name, value)
            if messages is not None:
                messages = self._with_system(record, messages)
                asked, answer = prompt_and_answer(messages, record.where)
                single = len(asked) == 1 and asked[0].role == "user"
                return transcript(asked), () if single else asked, answer
            if isinstance(value, int | float):
                raise UnusableRow(
                    f"{record.where}: prompt {name!r} must be text, not {value!r}: name another --prompt-column",
                    "the prompt is not text",
                )
            prompt = as_text(value, f"prompt {name!r}", record.where, "--prompt-column")
            if name != "system" and (system := _system(record)):
                rule = (
                    "column 'system' is no part of the prompts, as they are no conversations (--template can name it)"
                )
                self._note(rule, record, system)
            if kind := json_kind(prompt):
                self._note(f"prompts that parse as a JSON {kind} are texts", record, prompt)
        if not prompt.strip():
            raise UnusableRow(
                f"{record.where}: the prompt is empty: give it text, or remove the row",
                "the prompt is empty",
            )
        return prompt, (), None

    def _with_system(self, record: Record, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The conversation, headed by the text in a column `system` if it has no system turn of its own."""
        system = _system(record)
        if system is None or messages[0].role == "system":
            return messages
        self._note("the text in column 'system' is the system turn of the conversation", record, system)
        return (
            Message(role="system", content=as_text(system, "column 'system'", record.where, "--prompt-column")),
            *messages,
        )

    def _conversation(self, record: Record, name: str, value: object) -> tuple[Message, ...] | None:
        if isinstance(value, str) and value.lstrip().startswith("[") and self.cells != "text":
            unpacked = as_list(value)
            messages = as_messages(unpacked[0], record.where) if unpacked else None
            if messages and unpacked:
                if not record.cells and self.cells == "auto":
                    raise InputError(
                        f"{record.where}: prompt {name!r} can be read as a conversation of {len(messages)} turns or as "
                        "a text: decide with --cells lists or --cells text"
                    )
                self._note(f"column {name!r}: conversations in {unpacked[1]} notation are read as such", record)
            return messages
        return as_messages(value, record.where)

    def _fill(self, template: str, record: Record) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            value = record.require(match[1], "--template")
            if is_missing(value):
                return ""
            if self.columns.choices_as == "letters" and match[1] == (self.columns.choices or "choices"):
                return "\n".join(
                    f"{letter}. {text}"
                    for letter, text in zip(string.ascii_uppercase, self._choices(record)[0], strict=False)
                )
            return self._text(match[1], value, f"column {match[1]!r}", record, "--template")

        return PLACEHOLDER.sub(replacement, template).rstrip()

    def _items(self, record: Record, name: str, value: object, what: str, option: str) -> object:
        """The list that a text holds in some notation, by the rules of `Layout.cells`; any other value unchanged."""
        if not isinstance(value, str) or self.cells == "text":
            return value
        found = as_list(value)
        if found is None:
            if almost_list(value) and (record.cells or self.cells == "lists"):
                raise InputError(
                    f"{record.where}: {what} {name!r} looks like a list, but not in the notation of JSON, Python or "
                    f"numpy: {value!r:.80}: correct it, or take it as text with --cells text"
                )
            if record.cells and is_python_object(value):
                raise InputError(
                    f"{record.where}: {what} {name!r} can be read as an object in Python notation or as the text "
                    f"{value!r:.80}: write the data as JSON lines or Parquet, or take it as text with --cells text"
                )
            if json_kind(value) == "object":
                self._note(f"column {name!r}: JSON objects are texts", record, value)
            return value
        items, notation = found
        if not record.cells and self.cells == "auto":
            if not any(isinstance(item, str) for item in items):
                self._note(f"column {name!r}: texts that look like lists of numbers are texts", record, value)
                return value
            raise InputError(
                f"{record.where}: {what} {name!r} can be read as the text {value!r:.80} or as a list of {len(items)} "
                f"in {notation} notation: decide with --cells lists or --cells text"
            )
        self._note(f"column {name!r}: texts in {notation} notation are lists (--cells text keeps them)", record, value)
        return items

    def _references(self, record: Record) -> tuple[str, ...]:
        option = "--reference-column"
        if self.columns.references:
            found = [(name, record.require(name, option)) for name in self.columns.references]
        else:
            found = [(name, record.get(name)) for name in _DEFAULT_REFERENCES]
            found = [(name, value) for name, value in found if not is_missing(value)][:1]
        texts: list[str] = []
        for name, packed in found:
            value = self._items(record, name, packed, "reference", option)
            if messages := as_messages(value, record.where):
                texts += self._answers(name, messages, record)
                continue
            items = value if isinstance(value, list) else [value]
            what = f"reference {name!r}"
            for item in items:
                if is_missing(item):
                    continue
                text = self._text(name, item, what, record, option)
                if text.strip().lower() in _EMPTY_WORDS:
                    self._note(f"column {name!r}: words for a missing value, such as 'NaN', are texts", record, text)
                texts.append(text)
        return tuple(text for text in texts if text.strip())

    def _answers(self, name: str, messages: tuple[Message, ...], record: Record) -> list[str]:
        """The references in a column of turns: each, if all are answers; otherwise the answer that they end with."""
        if len(messages) > 1 and all(turn.role == "assistant" for turn in messages):
            self._note(f"column {name!r}: each of several answers in a row is a reference", record)
            return [turn.content for turn in messages]
        if messages[-1].role != "assistant":
            raise UnusableRow(
                f"{record.where}: the conversation in reference {name!r} must end with a turn of the assistant, not of "
                f"the {messages[-1].role}: correct it, or name another --reference-column",
                "a reference that is no answer",
            )
        if len(messages) > 1:
            self._note(f"column {name!r}: the last answer of a conversation is the reference", record)
        return [messages[-1].content]

    def _choices(self, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The choices and their own labels, either of them perhaps empty."""
        option = "--choices-column"
        name, value = self._value(record, self.columns.choices, "choices", option)
        if is_missing(value) or (record.cells and value == ""):
            return (), ()
        items, labels = _labelled(self._items(record, name, value, "choices", option))
        if not isinstance(items, list):
            raise UnusableRow(
                f"{record.where}: choices {name!r} must be a list of texts, not {type(items).__name__}: "
                "name a column of lists with --choices-column (in CSV, lists in JSON or Python notation)",
                "the choices are no list",
            )
        choices = tuple(self._text(name, item, f"choice in {name!r}", record, option) for item in items)
        if self.columns.choices_as == "letters" and len(choices) > len(string.ascii_uppercase):
            raise UnusableRow(
                f"{record.where}: --choices-as letters needs at most {len(string.ascii_uppercase)} choices, not "
                f"{len(choices)}: score their texts, with --choices-as texts",
                "more choices than letters",
            )
        if self.columns.labels:
            option = "--labels-column"
            labels = record.require(self.columns.labels, option)
            labels = self._items(record, self.columns.labels, labels, "labels", option)
            if not isinstance(labels, list) or len(labels) != len(choices):
                raise InputError(
                    f"{record.where}: labels {self.columns.labels!r} must be a list of {len(choices)} texts, one per "
                    f"choice, not {labels!r:.80}: name another --labels-column"
                )
        elif labels is None and "." in name:
            beside = name.rpartition(".")[0]
            labels = next((found for key in _LABEL_KEYS if (found := record.get(f"{beside}.{key}")) is not None), None)
        return choices, _unique(labels, len(choices))

    def _question(self, record: Record, choices: tuple[str, ...], labels: tuple[str, ...]) -> Question | None:
        name, value = self._value(record, self.columns.answer, "answer", "--answer-column")
        if is_missing(value) or (record.cells and value == ""):
            return None
        if not choices:
            if self.columns.answer:
                raise UnusableRow(
                    f"{record.where}: answer {name!r} needs choices, but the row has none: name their column with "
                    "--choices-column",
                    "no choices",
                )
            return None
        return Question(where=record.where, name=name, answer=value, choices=choices, labels=labels)

    def _id(self, record: Record, row: int) -> str:
        if self.columns.id != "":
            name, value = self._value(record, self.columns.id, "id", "--id-column")
            text = "" if is_missing(value) else self._text(name, value, f"id {name!r}", record, "--id-column")
            if text:
                return text
            if self.columns.id:
                raise UnusableRow(
                    f"{record.where}: id {name!r} is empty: fill it, or name no --id-column", "the id is empty"
                )
        return f"{row:05d}"

    def _task(self, record: Record) -> str:
        name, value = self._value(record, self.columns.task, "task", "--task-column")
        return "" if is_missing(value) else self._text(name, value, f"task {name!r}", record, "--task-column")

    def _value(self, record: Record, named: str | None, default: str, option: str) -> tuple[str, object]:
        """A column's name and value: a named column is required, the default one optional."""
        return (named, record.require(named, option)) if named else (default, record.get(default))

    def _text(self, name: str, value: object, what: str, record: Record, option: str) -> str:
        """A value as text; whole numbers and midnights as their column has them."""
        if isinstance(value, bool):
            self._note(f"column {name!r}: truth values are written as in JSON, true or false", record)
        elif isinstance(value, datetime.date | datetime.time):
            self._note(f"column {name!r}: dates and times are written as in ISO 8601", record)
        numeric = isinstance(value, (float, datetime.datetime)) or (
            record.cells and isinstance(value, str) and _WHOLE_CELL.fullmatch(value) is not None
        )
        if not numeric or not self._whole(name, value, record):
            return as_text(value, what, record.where, option)
        if isinstance(value, str):
            return value.removesuffix(".0")
        return as_text(value, what, record.where, option, whole=True)

    def _whole(self, name: str, value: object, record: Record) -> bool:
        """Whether all numbers of a column are whole (in text cells, with gaps), or all its times midnights."""
        if self.cells == "text":
            return False
        kind = str if isinstance(value, str) else datetime.datetime if isinstance(value, datetime.datetime) else float
        if (name, kind) not in self._decided:
            decide = {str: self._whole_cells, datetime.datetime: self._midnights, float: self._whole_numbers}[kind]
            self._decided[name, kind], rule = decide(name)
            if rule:
                self.decisions.add(f"column {name!r}: {rule}", f"first in {record.where}", rows=0)
        return self._decided[name, kind]

    def _values(self, name: str) -> Iterator[object]:
        """The values of a column that are not missing, out of lists, and out of cells that hold lists."""
        for record in self.records:
            value = record.get(name)
            if record.cells and isinstance(value, str) and (found := as_list(value)):
                value = found[0]
            yield from (one for one in _flat([value]) if not is_missing(one))

    def _whole_cells(self, name: str) -> tuple[bool, str | None]:
        cells = [value.strip() for record in self.records if isinstance(value := record.get(name), str)]
        filled = [cell for cell in cells if cell]
        if not all(_WHOLE_CELL.fullmatch(cell) for cell in filled):
            return False, None
        if len(filled) == len(cells):
            return False, "whole numbers without gaps are kept as written, such as 18.0"
        return True, "whole numbers with gaps: 18.0 is read as 18 (--cells text keeps it)"

    def _whole_numbers(self, name: str) -> tuple[bool, str | None]:
        numbers = [value for value in self._values(name) if isinstance(value, float)]
        if all(is_whole(value) for value in numbers):
            return True, "all numbers are whole: 18.0 is read as 18 (--cells text keeps it)"
        mixed = any(is_whole(value) for value in numbers)
        return False, "some numbers are not whole: 18.0 is kept as 18.0" if mixed else None

    def _midnights(self, name: str) -> tuple[bool, str | None]:
        times = [value for value in self._values(name) if isinstance(value, datetime.datetime)]
        midnight = all(value.time() == datetime.time.min for value in times)
        return midnight, "all times are midnight and read as dates" if midnight else None


def _system(record: Record) -> str | None:
    """The text in a column `system`; None without one."""
    system = record.get("system")
    return system if isinstance(system, str) and system.strip() else None


def _flat(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _labelled(value: object) -> tuple[object, Any]:
    """The list of choices and that of their labels (None if there is none) in one of the nested forms."""
    if isinstance(value, Mapping):
        for key in _TEXT_KEYS:
            if isinstance(value.get(key), list):
                return value[key], next((value[name] for name in _LABEL_KEYS if name in value), None)
        given = {key: text for key, text in value.items() if text is not None}
        if given and all(isinstance(text, str) for text in given.values()):
            return list(given.values()), list(given)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for key in _TEXT_KEYS:
            if all(key in item for item in value):
                name = next((name for name in _LABEL_KEYS if all(name in item for item in value)), None)
                return [item[key] for item in value], None if name is None else [item[name] for item in value]
    return value, None


def _unique(labels: Any, count: int) -> tuple[str, ...]:
    """Labels as texts if each choice has its own, else none."""
    if not isinstance(labels, list) or len(labels) != count:
        return ()
    if not all(isinstance(label, (str, int, float)) and not isinstance(label, bool) for label in labels):
        return ()
    texts = tuple(as_text(label, "label", "", "--labels-column", whole=True).strip() for label in labels)
    return texts if len(set(texts)) == count else ()
