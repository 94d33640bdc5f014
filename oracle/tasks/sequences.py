"""Documents of the harness's tasks as sequences, with prompts as the harness renders them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

from oracle.errors import InputError, door
from oracle.sequences import LoadedData
from oracle.tasks.harness import load_tasks, quiet
from oracle.tasks.options import TaskOptions, task_names
from oracle.types import Rendered, Sequence

if TYPE_CHECKING:
    from oracle.tasks.encoder import Encoder

__all__ = ["read_tasks"]


def read_tasks(
    data: str,
    options: TaskOptions,
    tokenizer: Any,
    context: int | None,
    *,
    only: Seq[str] = (),
    limit: int | None = None,
    skip_unusable: bool = False,
) -> LoadedData:
    """The documents of tasks as sequences, in the order of the harness.

    Prompts, examples, choices and targets are the harness's, and of likelihood tasks the token ids of the prompts and
    of the continuations, which the record holds. There, white space that ends a prompt belongs to the continuation.

    Args:
        data: `lm-eval:TASK[,TASK...]`.
        options: number and seed of examples, template, folders.
        tokenizer: the model's.
        context: longest input of the model, in tokens; None if nothing limits it.
        only: names of tasks to keep; empty for all.
        limit: maximum number of sequences, spread over the tasks; the first documents of each.
        skip_unusable: whether to leave out documents that cannot be sequences, instead of raising.

    Raises:
        InputError: if a task cannot be loaded, or a document cannot be a sequence.
    """
    from oracle.tasks.encoder import Encoder

    tasks = load_tasks(task_names(data), options)
    chosen = {name: task for name, task in tasks.items() if not only or name in only} or tasks
    counts = _shares({name: len(task.task_docs) for name, task in chosen.items()}, limit)
    encoder = Encoder(tokenizer, context)
    sequences: list[Sequence] = []
    decisions: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    for name, count in counts.items():
        if not count:
            continue
        with door(f"rendering the prompts of task {name!r}", "check its task file and data"), quiet():
            groups = _requests(chosen[name], count, options, encoder)
        for one in _Conversion(name, chosen[name], encoder).sequences(groups):
            if isinstance(one, Sequence):
                sequences.append(one)
            elif skip_unusable:
                skipped[one[1]] += 1
            else:
                raise InputError(f"{one[0]}: {one[1]}; leave such documents out with --skip-unusable")
        decisions.append({"rule": _about(name, chosen[name], options), "rows": 0, "first": ""})
    if not sequences:
        raise InputError(f"{data} must have at least one sequence, not none: choose other tasks")
    return LoadedData(sequences=sequences, decisions=decisions, skipped=dict(skipped))


def _shares(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """Number of documents per task: the limit is filled one document of each task at a time."""
    shares = dict(sizes) if limit is None else dict.fromkeys(sizes, 0)
    left = 0 if limit is None else min(limit, sum(sizes.values()))
    while left:
        open_ones = [name for name, size in sizes.items() if shares[name] < size]
        step = max(1, min(left // len(open_ones), min(sizes[name] - shares[name] for name in open_ones)))
        for name in open_ones[:left]:
            shares[name] += step
            left -= step
    return shares


def _about(name: str, task: Any, options: TaskOptions) -> str:
    from lm_eval import __version__

    shots = task.get_config("num_fewshot")
    fixed = ""
    if options.num_fewshot not in (None, shots):
        fixed = f", which its task file fixes against --num-fewshot {options.num_fewshot}"
    template = ", chat template" if options.apply_chat_template else ""
    seed = f", seed {options.fewshot_seed}" if shots else ""
    return (
        f"task {name}, version {task.VERSION}, of lm-evaluation-harness {__version__}: {shots} examples per prompt"
        f"{fixed}{seed}{template}"
    )


def _requests(task: Any, count: int, options: TaskOptions, encoder: "Encoder") -> list[list[Any]]:
    """The harness's requests of the first documents, grouped by document."""
    task.set_fewshot_seed(seed=options.fewshot_seed)
    template = encoder.apply_chat_template if options.apply_chat_template else None
    task.build_all_requests(
        limit=count,
        apply_chat_template=options.apply_chat_template,
        fewshot_as_multiturn=options.apply_chat_template,
        chat_template=template,
    )
    groups: dict[int, list[Any]] = {}
    for request in task.instances:
        groups.setdefault(request.doc_id, []).append(request)
    return [sorted(requests, key=lambda one: one.idx) for requests in groups.values()]


class _Conversion:
    """The conversion of one task's documents."""

    def __init__(self, name: str, task: Any, encoder: "Encoder") -> None:
        self.name, self.task, self.encoder = name, task, encoder
        if getattr(task, "multiple_input", 0):
            raise InputError(
                f"the task {name!r} puts its choices into the prompt, one prompt per choice, but a sequence has one "
                f"prompt: evaluate it with 'oracle eval --tasks {name}', or search a task with one prompt per question"
            )

    def sequences(self, groups: Seq[Seq[Any]]) -> Iterator[Sequence | tuple[str, str]]:
        """The documents as sequences; one that cannot be a sequence as its name and the reason."""
        convert = {
            "generate_until": self._generation,
            "multiple_choice": self._choices,
            "loglikelihood": self._target,
            "loglikelihood_rolling": self._text,
        }[self.task.OUTPUT_TYPE]
        for requests in groups:
            number = int(requests[0].doc_id)
            where = f"{self.name}-{number:05d}"
            try:
                yield convert(where, requests)
            except InputError as error:
                yield where, str(error)

    def _sequence(self, where: str, requests: Seq[Any], **values: Any) -> Sequence:
        doc, number = requests[0].doc, int(requests[0].doc_id)
        record = {"doc_id": number, "doc": doc, **values.pop("record", {})}
        return Sequence(id=where, task=self.name, record=json.dumps(record, default=str), **values)

    def _generation(self, where: str, requests: Seq[Any]) -> Sequence:
        doc, prompt = requests[0].doc, requests[0].args[0]
        target = self.task.doc_to_target(doc)
        if self.task.config.doc_to_choice is not None and isinstance(target, int):
            target = self.task.doc_to_choice(doc)[target]
        return self._sequence(where, requests, prompt=prompt, references=_texts(target))

    def _choices(self, where: str, requests: Seq[Any]) -> Sequence:
        doc = requests[0].doc
        choices = [str(choice) for choice in self.task.doc_to_choice(doc)]
        gold = self.task.doc_to_target(doc)
        if isinstance(gold, str):
            gold = choices.index(gold) if gold in choices else -1
        known = isinstance(gold, int) and 0 <= gold < len(choices)
        if not known and not isinstance(gold, list):
            raise InputError(f"the right answer {gold!r} is none of the {len(choices)} choices")
        prompt, continuations = self._encoded(requests)
        return self._sequence(
            where,
            requests,
            prompt=prompt.text,
            rendered=prompt,
            choices=tuple(choices),
            answer=gold if known else None,
            references=_texts([choices[place] for place in ([gold] if known else gold) if 0 <= place < len(choices)]),
            record={"continuations": continuations},
        )

    def _target(self, where: str, requests: Seq[Any]) -> Sequence:
        prompt, continuations = self._encoded(requests)
        references = _texts(requests[0].args[1])
        return self._sequence(
            where,
            requests,
            prompt=prompt.text,
            rendered=prompt,
            references=references,
            record={"continuations": continuations},
        )

    def _text(self, where: str, requests: Seq[Any]) -> Sequence:
        windows = self.encoder.windows(requests[0])
        if len(windows) != 1:
            raise InputError(
                f"a text of {sum(len(ids) for _, ids in windows)} tokens does not fit the model's context of "
                f"{self.encoder.max_length}, and a sequence is scored in one piece: 'oracle eval' scores it in windows"
            )
        prompt = self._prompt("", windows[0][0])
        return self._sequence(
            where,
            requests,
            prompt=prompt.text,
            rendered=prompt,
            references=_texts(requests[0].args[0]),
            record={"continuations": [windows[0][1]]},
        )

    def _encoded(self, requests: Seq[Any]) -> tuple[Rendered, list[list[int]]]:
        """The prompt that requests share, and the token ids of their continuations."""
        pairs = self.encoder.pairs(requests)
        context = pairs[0][0]
        if any(other != context for other, _ in pairs) or not all(ids for _, ids in pairs):
            raise InputError("its choices do not share one prompt, or one of them has no tokens of its own")
        return self._prompt(str(requests[0].args[0]).rstrip(), context), [ids for _, ids in pairs]

    def _prompt(self, text: str, ids: Seq[int]) -> Rendered:
        """A prompt with its token ids; of an empty one, which the harness begins with a special token, that token."""
        return Rendered(text=text or self.encoder.tok_decode(ids, skip_special_tokens=False), ids=tuple(ids))


def _texts(target: Any) -> tuple[str, ...]:
    """Targets as references: not empty, each once."""
    several = target if isinstance(target, list | tuple) else [target]
    return tuple(dict.fromkeys(text for text in map(str, several) if text.strip()))
