"""The data of a search: its sequences, and their preview as the model sees them, without the model."""

from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from analysis.formatting import counted
from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.metrics import get_metric
from oracle.models import load_tokenizer
from oracle.models.rendering import PromptFormat
from oracle.pipeline.vacuous import scored_tokens, vacuous, vacuous_line
from oracle.sequences import LoadedData, check_sequences, read_data, select
from oracle.tasks import task_names

__all__ = ["Preview", "preview", "read_sequences", "with_task_settings"]


def with_task_settings(config: SearchConfig) -> SearchConfig:
    """The config with what its tasks decide, if its data are tasks: criterion, stop texts, length of outputs.

    Raises:
        InputError: if a task cannot be loaded, or does not fit the settings.
    """
    if not task_names(config.data):
        return config
    from oracle.tasks.settings import task_settings

    found = task_settings(config.data, config.task_options, config.criterion, config.metrics, config.tasks)
    return replace(config, **found)


def read_sequences(config: SearchConfig) -> LoadedData:
    """The sequences of a search, with what was decided while they were read.

    Raises:
        InputError: if the data cannot be found or read, lacks a column, or is empty.
    """
    if task_names(config.data):
        return _read_tasks(config)
    return read_data(
        config.data,
        columns=config.columns,
        reference_files=config.reference_files,
        tasks=config.tasks,
        limit=config.limit,
        layout=config.layout,
        extract=config.extract,
        skip_unusable=config.skip_unusable,
        metrics=[get_metric(name) for name in dict.fromkeys((config.criterion, *config.metrics))],
        keep=any(get_metric(name).kind == "function" for name in config.asked_metrics),
    )


def _read_tasks(config: SearchConfig) -> LoadedData:
    from oracle.tasks.sequences import read_tasks

    tokenizer, context = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    read = read_tasks(
        config.data,
        config.task_options,
        tokenizer,
        context,
        only=config.tasks,
        limit=config.limit,
        skip_unusable=config.skip_unusable,
    )
    return replace(read, sequences=select(read.sequences, config.tasks))


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The sequences of a search with their prompts as the model sees them.

    Attributes:
        config: settings of the search.
        data: the sequences, and how they were read.
        prompts: rendered prompt of each sequence, with the chat template's own tokens.
        tokens: length of each prompt, in tokens.
        notes: what the user should know of the prompts.
        problems: reasons for which a search would refuse the data; empty if it would not.
    """

    config: SearchConfig
    data: LoadedData
    prompts: Seq[str]
    tokens: Seq[int]
    notes: Seq[str]
    problems: Seq[str]

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The first sequences: `id`, `task`, rendered `prompt`, `prompt_tokens`, `references`, `choices`, `answer`."""
        return [
            {
                "id": one.id,
                "task": one.task,
                "prompt": prompt,
                "prompt_tokens": tokens,
                "references": list(one.references),
                "choices": list(one.choices),
                "answer": one.answer,
            }
            for one, prompt, tokens in zip(self.data.sequences[:count], self.prompts, self.tokens, strict=False)
        ]

    def to_dict(self, count: int) -> dict[str, Any]:
        """Everything as JSON values, with the first `count` sequences."""
        return {
            "source": self.config.data,
            "model": self.config.model,
            "sequences": len(self.data.sequences),
            "tasks": dict(Counter(one.task for one in self.data.sequences)),
            "prompt_tokens": {"least": min(self.tokens), "median": median(self.tokens), "most": max(self.tokens)},
            "decisions": list(self.data.decisions),
            "skipped": self.data.skipped,
            "notes": list(self.notes),
            "problems": list(self.problems),
            "rows": self.rows(count),
        }


def preview(config: SearchConfig) -> Preview:
    """Reads the data of a search and renders its prompts.

    Raises:
        InputError: if the data cannot be read, a prompt cannot be rendered, or there is no tokenizer.
    """
    config = with_task_settings(config)
    data = read_sequences(config)
    tokenizer, context = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    prompt_format = PromptFormat.of(tokenizer, config)
    problems, prompts, tokens = [], [], []
    for name in dict.fromkeys((config.criterion, *config.metrics)):
        try:
            check_sequences(data.sequences, get_metric(name), data.columns)
        except InputError as error:
            problems.append(str(error))
    for sequence in data.sequences:
        try:
            rendered = sequence.rendered or prompt_format.render(sequence.asked)
        except InputError as error:
            raise InputError(f"sequence '{sequence.id}': {error}") from error
        prompts.append(rendered.text)
        tokens.append(len(rendered.ids))
    room = None if context is None else context - config.max_new_tokens
    beyond = [] if room is None else [place for place, count in enumerate(tokens) if count > room]
    if beyond:
        first = data.sequences[beyond[0]].id
        what = f"{counted(len(beyond), 'prompt')} and {counted(config.max_new_tokens, 'new token')}"
        problems.append(
            f"{what} do not fit the model's context of {context} tokens, the first with id {first!r} and "
            f"{tokens[beyond[0]]} tokens; shorten or remove them"
        )
    notes = list(prompt_format.notes(sequence.asked for sequence in data.sequences))
    if not problems:
        untold = vacuous(config, data.sequences, scored_tokens(tokenizer, config, data.sequences))
        notes += [vacuous_line(reason, len(ids), len(data.sequences)) for reason, ids in untold.items()]
    return Preview(config=config, data=data, prompts=prompts, tokens=tokens, notes=notes, problems=problems)
