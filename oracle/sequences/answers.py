"""Which choice an answer means: its label, its text, its letter, or its number."""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from oracle.errors import InputError
from oracle.sequences.records import Decisions, LabelName, UnusableRow

__all__ = ["AnswerAs", "Question", "resolve_answers"]

AnswerAs = Literal["label", "text", "letter", "index", "number"]
"""How an answer is read: as a choice's own label, its text, its letter (A is the first), its index from 0, or its
number from 1; letter and number as the choices' texts state them, such as "B) ..." or "2. ...", if all do."""

_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_MARKED = re.compile(r"\s*\(?([A-Za-z]|[0-9]{1,2})[).:]\s+(\S.*)", re.DOTALL)
_DIGITS = re.compile(r"([0-9]{1,9})(?:\.0+)?")
_CONTENT: tuple[AnswerAs, ...] = ("text", "letter", "index")
"""Readings that must not disagree about a row; where choices state their numbers, so do numbers."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The choices of a row and what it gives as the answer.

    Attributes:
        where: the row.
        name: column of the answer.
        answer: its value, not missing.
        choices: the choices.
        labels: the choices' own labels; empty if they have none.
    """

    where: str
    name: str
    answer: object
    choices: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @cached_property
    def marked(self) -> dict[str, str]:
        """Letters or numbers with which the texts of all choices begin, each with the rest; empty if they do not."""
        found = [match for choice in self.choices if (match := _MARKED.fullmatch(choice))]
        marks = {match[1].upper() if match[1].isalpha() else str(int(match[1])): match[2] for match in found}
        alike = len({mark.isalpha() for mark in marks}) == 1
        return marks if alike and len(marks) == len(self.choices) > 1 else {}

    @property
    def numbered(self) -> bool:
        """Whether the texts of the choices state their numbers."""
        return any(mark.isdigit() for mark in self.marked)

    @property
    def content(self) -> tuple[AnswerAs, ...]:
        """Readings that must not disagree about the row."""
        return (*_CONTENT, "number") if self.numbered else _CONTENT

    def readings(self) -> dict[AnswerAs, int]:
        """Index of the choice under each reading that fits."""
        value = self.answer
        if isinstance(value, list):
            flags = [flag for flag in value if not isinstance(flag, (list, dict, str))]
            right = [place for place, flag in enumerate(flags) if flag == 1]
            fits = len(flags) == len(value) == len(self.choices) and len(right) == 1 and set(flags) <= {0, 1}
            return {"index": right[0]} if fits else {}
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = str(value).strip() if isinstance(value, (str, int, float)) else ""
        if not text:
            return {}
        digits = _DIGITS.fullmatch(text)
        forms = (text, digits[1]) if digits else (text,)
        letter, marks = _LETTER.fullmatch(text), list(self.marked)
        whole, unmarked = _place(forms, self.choices), _place(forms, list(self.marked.values()))
        found: dict[AnswerAs, int | None] = {
            "label": _place((*forms, letter[1]) if letter else forms, self.labels),
            "text": unmarked if whole is None else whole,
        }
        if letter:
            place = ord(letter[1].upper()) - ord("A")
            found["letter"] = _place((letter[1],), marks) if marks and not self.numbered else place
        if digits:
            found["index"] = int(digits[1])
            found["number"] = _place((str(int(digits[1])),), marks) if self.numbered else int(digits[1]) - 1
        fitting = {name: place for name, place in found.items() if place is not None and 0 <= place < len(self.choices)}
        if isinstance(value, LabelName):
            # The name of a class says more than its number.
            fitting = {name: place for name, place in fitting.items() if name not in ("index", "number")}
            if not fitting and value.number < len(self.choices):
                fitting["index"] = value.number
        return fitting

    @property
    def counted(self) -> bool:
        """Whether the answer is a number written in digits."""
        plain = not isinstance(self.answer, (bool, list, LabelName))
        return plain and _DIGITS.fullmatch(str(self.answer).strip()) is not None


def _place(forms: Seq[str], names: Seq[str]) -> int | None:
    """Index of a text, the first of its forms that is there, among names; or else ignoring case if only one fits."""
    stripped = [name.strip() for name in names]
    if there := next((form for form in forms if form in stripped), None):
        return stripped.index(there)
    folded = [place for place, name in enumerate(stripped) if name.casefold() == forms[0].casefold()]
    return folded[0] if len(folded) == 1 else None


def resolve_answers(
    questions: Seq[Question], answer_as: AnswerAs | None, decisions: Decisions
) -> list[int | UnusableRow]:
    """Index of the right choice per row; or why a row has none.

    A row's own labels come first. Otherwise readings as text, letter and index from 0 must agree, and as number where
    the choices state theirs; readings that do not fit every row are left out if another one fits them all.

    Args:
        questions: the rows.
        answer_as: the only reading allowed; None to decide by the data.
        decisions: records readings that are chosen among several.

    Raises:
        InputError: if readings disagree about a row, or all numbers would fit only if they counted from 1.
    """
    if answer_as is not None:
        return [_one(question, question.readings().get(answer_as), answer_as) for question in questions]
    readings = [question.readings() for question in questions]
    unlabelled = [found for found in readings if "label" not in found and found]
    universal = {name for name in get_args(AnswerAs) if unlabelled and all(name in found for found in unlabelled)}
    _check_base(questions, readings)
    _note_base(questions, readings, decisions)
    results: list[int | UnusableRow] = []
    for question, found in zip(questions, readings, strict=True):
        if "label" in found:
            if any(place != found["label"] for name, place in found.items() if name != "number"):
                decisions.add(
                    "answers are looked up among the labels of the choices (--answer-as decides)",
                    _shown(question, {"label": found["label"]}),
                )
            results.append(found["label"])
            continue
        possible = {name: found[name] for name in question.content if name in found}
        if len(set(possible.values())) > 1:
            possible = {name: place for name, place in possible.items() if name in universal} or possible
            if len(set(possible.values())) > 1:
                raise InputError(
                    f"{question.where}: answer {question.name!r} can be read in several ways: "
                    f"{_readings(question, possible)}: decide with --answer-as {' or '.join(possible)}"
                )
            name = next(iter(possible))
            decisions.add(
                f"answers are read as the {name} of a choice, which fits every row (--answer-as decides)",
                _shown(question, possible),
            )
        results.append(_one(question, next(iter(possible.values()), None), None))
    return results


def _check_base(questions: Seq[Question], readings: Seq[dict[AnswerAs, int]]) -> None:
    """Raises `InputError` if numbers count from 1 in some row, and in no row from 0."""
    counted = [
        (question, found)
        for question, found in zip(questions, readings, strict=True)
        if question.counted and not question.numbered and "label" not in found and "text" not in found
    ]
    beyond = [question for question, found in counted if "number" in found and "index" not in found]
    if beyond and len(counted) > 1 and all("number" in found for _, found in counted):
        first = beyond[0]
        raise InputError(
            f"{first.where}: answer {first.name!r} must be one of the {len(first.choices)} choices, its letter or its "
            f"index from 0, not {first.answer!r}; all answers fit if they count from 1, so that {first.answer!r} is "
            f"{first.choices[-1]!r:.80}: decide with --answer-as number, or --answer-as index"
        )


def _note_base(questions: Seq[Question], readings: Seq[dict[AnswerAs, int]], decisions: Decisions) -> None:
    """Records that numbers are read as indices from 0 where they could as well count from 1."""
    counted = [
        (question, found)
        for question, found in zip(questions, readings, strict=True)
        if question.counted and not question.numbered and "index" in found and not {"label", "text"} & set(found)
    ]
    if counted and all("number" in found for _, found in counted):
        question, found = counted[0]
        both: dict[AnswerAs, int] = {"index": found["index"], "number": found["number"]}
        decisions.add(
            "answers are indices from 0, though all would fit as numbers from 1, too (--answer-as decides)",
            _readings(question, both, prefix=f"{question.where}: "),
            rows=len(counted),
        )


def _one(question: Question, place: int | None, answer_as: AnswerAs | None) -> int | UnusableRow:
    if place is not None:
        return place
    as_what = "its letter or its index from 0" if answer_as is None else f"read with --answer-as {answer_as}"
    if answer_as == "label" and not question.labels:
        as_what += ", but the choices have no labels: name them with --labels-column"
    value: Any = str(question.answer) if isinstance(question.answer, LabelName) else question.answer
    return UnusableRow(
        f"{question.where}: answer {question.name!r} must be one of the {len(question.choices)} choices, {as_what}, "
        f"not {value!r:.80}: correct it, or name another column with --answer-column",
        "the answer is none of the choices",
    )


def _readings(question: Question, found: dict[AnswerAs, int], prefix: str = "") -> str:
    readings = " or ".join(f"{question.choices[place]!r:.40} as {name}" for name, place in found.items())
    return f"{prefix}{question.answer!r:.40} is {readings}"


def _shown(question: Question, found: dict[AnswerAs, int]) -> str:
    return _readings(question, dict(list(found.items())[:1]), prefix=f"{question.where}: ")
