"""The names of the columns of a data set that form a sequence."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from oracle.errors import InputError
from oracle.sequences.answers import AnswerAs
from oracle.sequences.conversations import CONVERSATIONS, as_messages
from oracle.sequences.records import Record
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_types, named_settings

__all__ = ["DEFAULT_PROMPT", "PLACEHOLDER", "ChoicesAs", "Columns"]

DEFAULT_PROMPT = "prompt"

ChoicesAs = Literal["texts", "letters"]
"""What of a choice is scored: its text, or the letter (A is the first) behind which the template shows it."""

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
"""Parts of a template: literal braces, or a column in braces."""


@named_settings
@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that form a sequence.

    A name may be a path into nested values, such as `instances.0.output`: keys of dicts and indices of lists, joined by
    dots. A key that itself contains the dot takes precedence. A column named here must exist in every row; default
    columns are used where they exist.

    Attributes:
        prompt: column of the prompt, a text or a conversation (OpenAI's `role` and `content`, or ShareGPT's `from` and
            `value`); not used with a template. Default: `prompt`, or else `messages` or `conversations`. The
            assistant's last turn, if a conversation ends with it, is the reference, unless there is a column of
            references.
        template: prompt text with columns in braces, such as `"{instruction}\\n\\n{instances.0.input}"`. `{{` and `}}`
            are literal braces; null is empty text; trailing white space is stripped.
        references: columns of the references, each a text or a list of texts; numbers become text, empty texts are
            omitted. Default: `references`, or else `reference`.
        choices: column of the list of choices, or of texts with labels as `{"text": [...], "label": [...]}`,
            `[{"text": ..., "label": ...}]` or `{"A": ...}`. Default: `choices`.
        choices_as: what is scored of a choice: its text, or its letter. With `letters` the choices' column in a
            template becomes one line per choice, `A. text`.
        labels: column of the list of the choices' own labels. Default: beside the choices, if nested.
        answer: column of the right choice. Default: `answer`, where there are choices.
        answer_as: how answers are read: as `label`, `text`, `letter`, `index` (from 0) or `number` (from 1). Default: a
            row's own labels come first; otherwise text, letter and index must agree where several fit.
        id: column of the id. Default: `id`, or else the zero-padded row number, from 0. An empty string numbers the
            rows even if there is a column `id`.
        task: column of the task name. Default: `task`, or else no task.
    """

    prompt: str = DEFAULT_PROMPT
    template: str | None = None
    references: tuple[str, ...] = ()
    choices: str | None = None
    choices_as: ChoicesAs = "texts"
    labels: str | None = None
    answer: str | None = None
    answer_as: AnswerAs | None = None
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
        if self.choices_as not in (known := get_args(ChoicesAs)):
            hint = nearest_hint(self.choices_as, known)
            raise InputError(f"--choices-as needs one of {', '.join(known)}, not '{self.choices_as}'{hint}")
        known = get_args(AnswerAs)
        if self.answer_as is not None and self.answer_as not in known:
            hint = nearest_hint(self.answer_as, known)
            raise InputError(f"--answer-as needs one of {', '.join(known)}, not '{self.answer_as}'{hint}")

    @property
    def needed(self) -> set[str]:
        """The columns that every row must have."""
        named = {*self.references, self.choices, self.labels, self.answer, self.id, self.task} - {None, ""}
        prompts = [match[1] for match in PLACEHOLDER.finditer(self.template) if match[1]] if self.template else []
        return {str(name) for name in named} | set(prompts or [self.prompt])

    def fit(self, fields: Mapping[str, object]) -> bool:
        """Whether an object has a prompt, which makes it a record."""
        record = Record(where="", fields=fields)
        if self.template is not None:
            return any(record.has(name[1]) for name in PLACEHOLDER.finditer(self.template) if name[1])
        names = (self.prompt, *(CONVERSATIONS if self.prompt == DEFAULT_PROMPT else ()))
        return any(_is_prompt(record.get(name)) for name in names)


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) or as_messages(value, "") is not None


def _check_template(template: str) -> None:
    matches = list(PLACEHOLDER.finditer(template))
    if any(match[0] in ("{", "}") for match in matches):
        raise InputError(f"template {template!r} has an unpaired brace: write {{{{ or }}}} for a literal brace")
    if not any(match[1] for match in matches):
        raise InputError(f"template {template!r} must name a column in braces, such as {{instruction}}")
