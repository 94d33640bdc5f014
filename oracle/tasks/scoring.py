"""Quality of outputs and of scored continuations, by metrics of this package or of a task.

The one place where the value of a metric for an output is computed: search, controllers and checks call it.
"""

import json
from collections.abc import Sequence as Seq
from functools import lru_cache
from typing import Any, Protocol

from oracle.errors import InputError, door
from oracle.metrics import METRICS, TASK_METRIC, answer_in, function_value, score_text
from oracle.tasks.harness import load_tasks, quiet
from oracle.tasks.options import TaskOptions, task_names
from oracle.types import Sequence

__all__ = ["ScoreOptions", "continuation_quality", "continuations_of", "text_quality"]


class ScoreOptions(Protocol):
    """The settings of `oracle.config.SearchConfig` that a score depends on."""

    @property
    def data(self) -> str:
        """The data; `lm-eval:TASK` for tasks."""

    @property
    def task_options(self) -> TaskOptions:
        """How tasks are loaded."""

    @property
    def extract(self) -> str | None:
        """What is compared instead of whole texts."""


def text_quality(metric: str, text: str, sequence: Sequence, options: ScoreOptions) -> float:
    """Quality of an output by a metric of kind `text` or `function`.

    Args:
        metric: name of the metric.
        text: the decoded output.
        sequence: its references and record count; another sequence's give the value by luck.
        options: settings of the search.

    Raises:
        InputError: if the metric cannot be computed.
    """
    if metric in METRICS:
        return score_text(metric, answer_in(text, options.extract), sequence.references)
    if metric.partition(":")[0] != TASK_METRIC:
        record = _record(sequence.record) if sequence.record else {}
        return function_value(metric, sequence.references, answer_in(text, options.extract), record)
    name, _, filter_name = metric.partition(":")[2].partition(",")
    task, record = _task(sequence, options), _record(sequence.record)
    with door(f"scoring an output by {metric!r} of task {sequence.task!r}", "check the task's metric"), quiet():
        return _number(score_output(task, int(record["doc_id"]), text)[f"{name},{filter_name}"], metric)


def continuation_quality(
    metric: str,
    results: Seq[tuple[float, bool]],
    sequence: Sequence,
    options: ScoreOptions,
    *,
    other: Sequence | None = None,
) -> float:
    """Quality by a metric of kind `continuations`: the harness's, from log-likelihoods.

    Args:
        metric: name of the metric.
        results: per continuation of `continuations_of(sequence, other)`, its log-likelihood in nats and whether it is
            the greedy output.
        sequence: the sequence.
        options: settings of the search.
        other: another sequence, for the value by luck: the right choice is the one at the place of its right answer,
            modulo the number of choices; the target is its target.
    """
    task, record = _task(sequence, options), _record(sequence.record)
    doc, name = task.task_docs[int(record["doc_id"])], metric.partition(":")[2]
    with door(f"scoring by {metric!r} of task {sequence.task!r}", "check the task's metric"), quiet():
        if other is None:
            return _number(task.process_results(doc, list(results))[name], metric)
        if task.OUTPUT_TYPE == "loglikelihood":
            doc = _task(other, options).task_docs[int(_record(other.record)["doc_id"])]
            return _number(task.process_results(doc, list(results))[name], metric)
        return _number(_elsewhere(task, doc, results, sequence, other)[name], metric)


def _elsewhere(task: Any, doc: Any, results: Seq[tuple[float, bool]], sequence: Sequence, other: Sequence) -> Any:
    """The harness's metrics of a question as if the right choice were at the place of another question's."""
    count = len(results)
    place = (other.answer or 0) % count
    if sequence.answer is None or callable(task.config.process_results):
        # Which choice is right is up to the task's own code: the likelihoods change places instead.
        shift = (place - (sequence.answer or 0)) % count
        return task.process_results(doc, [results[(one + shift) % count] for one in range(count)])
    task.doc_to_target = lambda _: place
    try:
        return task.process_results(doc, list(results))
    finally:
        del task.doc_to_target


def continuations_of(sequence: Sequence, other: Sequence | None = None) -> list[list[int]]:
    """Token ids of the continuations that a metric of kind `continuations` scores after the prompt.

    Args:
        sequence: the sequence.
        other: another one, for the value by luck; its target takes the place of the only one.
    """
    own = _record(sequence.record)["continuations"]
    if other is None or len(own) > 1:
        return own
    return _record(other.record).get("continuations", own)[:1]


def score_output(task: Any, number: int, text: str) -> dict[str, Any]:
    """The harness's values of an output of one document, by `METRIC,FILTER`."""
    from lm_eval.api.instance import Instance

    doc, repeats = task.task_docs[number], task.config.repeats or 1
    request = Instance(
        request_type=task.OUTPUT_TYPE,
        doc=doc,
        arguments=("", {}),
        idx=0,
        metadata=(task.config.task, number, repeats),
        resps=[text] * repeats,
    )
    found: dict[str, Any] = {}
    for ensemble in task._filters:
        ensemble.apply([request])
        values = task.process_results(doc, [request.filtered_resps[ensemble.name]])
        found |= {f"{name},{ensemble.name}": value for name, value in values.items()}
    return found


def _task(sequence: Sequence, options: ScoreOptions) -> Any:
    tasks = load_tasks(task_names(options.data), options.task_options)
    if sequence.task not in tasks:
        raise InputError(f"sequence '{sequence.id}' is of no task of {options.data}: restore the run's task files")
    return tasks[sequence.task]


@lru_cache(maxsize=4096)
def _record(record: str) -> Any:
    if not record:
        raise InputError("a metric of a task needs the task's documents, but a sequence has none: search the task anew")
    return json.loads(record)


def _number(value: Any, metric: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"metric {metric!r} gives {value!r:.80} for one document, but a number is required") from None
