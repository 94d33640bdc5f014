"""What tasks decide in a search: criterion, stop texts, length of outputs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from oracle.errors import FOREIGN, InputError
from oracle.metrics import TASK_METRIC
from oracle.tasks.harness import UNCONDITIONAL, generation_settings, load_tasks, quiet
from oracle.tasks.options import TaskOptions, task_names
from oracle.tasks.scoring import score_output
from oracle.utils.text import nearest_hint

__all__ = ["metric_names", "task_settings"]

NEAREST = {
    "bleu": "bleu, sentence BLEU",
    "chrf": "chrf, sentence chrF2",
    "chrf++": "chrf, sentence chrF2",
    "ter": "chrf, sentence chrF2",
    "f1": "lm-eval:acc, or exact_match",
    "mcc": "lm-eval:acc",
    "brier_score": "lm-eval:acc, or log_likelihood",
    "likelihood": "log_likelihood, of the right answer",
    "acc_mutual_info": "lm-eval:acc",
    "perplexity": "log_likelihood, in nats per token",
    "word_perplexity": "log_likelihood, in nats per token",
    "byte_perplexity": "log_likelihood, in nats per token",
    "bits_per_byte": "log_likelihood, in nats per token",
}
"""Metric that exists only for a whole corpus -> criterion that comes nearest for one sequence."""

OTHERWISE = {"generate_until": "rougeL or chrf", "multiple_choice": "choice_accuracy"}
"""Output type of a task -> the same for metrics that are not listed above."""


def task_settings(
    data: str, options: TaskOptions, criterion: str, metrics: Iterable[str], only: Iterable[str] = ()
) -> dict[str, Any]:
    """Settings of a search as the tasks decide them: `criterion`, `metrics`, `max_new_tokens`, `stop`, `task_options`.

    Args:
        data: `lm-eval:TASK[,TASK...]`.
        options: names in `own` what the tasks decide besides the metrics.
        criterion: `lm-eval` for the first metric of the tasks; other names of metrics are completed.
        metrics: further metrics.
        only: names of tasks to keep; empty for all.

    Raises:
        InputError: if a metric exists only for a whole corpus, the tasks have no metric in common, or they differ in
            what only a whole search can have.
    """
    tasks = load_tasks(task_names(data), options)
    wanted = set(only)
    tasks = {name: task for name, task in tasks.items() if not wanted or name in wanted} or tasks
    found: dict[str, Any] = {
        "criterion": _complete(criterion, tasks),
        "metrics": tuple(_complete(name, tasks) for name in metrics),
        "task_options": replace(options, own=()),
    }
    stop, length = _generation(tasks, options)
    values = {"stop": stop, "max_new_tokens": length}
    return found | {name: values[name] for name in options.own}


def _generation(tasks: Mapping[str, Any], options: TaskOptions) -> tuple[tuple[str, ...], int]:
    """Stop texts and maximum length of the outputs; one token where no task scores an output."""
    by_settings: dict[tuple[tuple[str, ...], int], str] = {}
    for name, task in tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            try:
                by_settings.setdefault(generation_settings(task.config.generation_kwargs or {}), name)
            except InputError as error:
                raise InputError(f"task {name!r}: {error}") from error
    if not by_settings:
        return (), 1
    if len(by_settings) > 1 and options.own:
        (first, one), (second, other), *_ = by_settings.items()
        raise InputError(
            f"tasks {one!r} and {other!r} end their outputs differently (stop texts and maximum length {first} and "
            f"{second}), but a search has one rule: search them in separate runs, or give --stop and --max-new-tokens"
        )
    return next(iter(by_settings))


def metric_names(task: Any) -> tuple[list[str], dict[str, str]]:
    """Metrics of a task: those of one document, as criteria; and those of a whole corpus, with the reason.

    What the task's code gives for its first document, with an empty output, shows which values are plain numbers. Those
    whose aggregation is no mean, or of which lower is better, are no criteria either.
    """
    from lm_eval.api.metrics import mean, nanmean

    kind = task.OUTPUT_TYPE
    filters = [ensemble.name for ensemble in task._filters] if kind == "generate_until" else [""]
    listed = [f"{name},{one}" if one else name for name in task._metric_fn_list for one in filters]
    try:
        with quiet():
            found = _probe(task)
    except FOREIGN:  # an empty output may be none that a task's own code expects
        found = dict.fromkeys(listed, 0.0)
    usable: list[str] = []
    refused = {name: "needs likelihoods without the prompt" for name in UNCONDITIONAL if name in task.aggregation()}
    for key, value in found.items():
        name = key.partition(",")[0]
        aggregation = task.aggregation().get(name)
        if not hasattr(value, "__float__") or aggregation not in (None, mean, nanmean):
            refused[name] = (
                f"exists only for a whole corpus (aggregation {getattr(aggregation, '__name__', 'of its own')})"
            )
        elif task.higher_is_better().get(name) is False:
            refused[name] = "is better if lower"
        else:
            usable.append(f"{TASK_METRIC}:{key}")
    places = {key: place for place, key in enumerate(listed)}
    usable.sort(key=lambda name: places.get(name.partition(":")[2], len(places)))
    return usable, refused


def _probe(task: Any) -> dict[str, Any]:
    if task.OUTPUT_TYPE == "generate_until":
        return score_output(task, 0, "")
    doc = task.task_docs[0]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return dict(task.process_results(doc, (-1.0,)))
    count = len(task.doc_to_choice(doc)) if task.OUTPUT_TYPE == "multiple_choice" else 1
    return dict(task.process_results(doc, [(-1.0 - place, False) for place in range(count)]))


def _complete(wanted: str, tasks: Mapping[str, Any]) -> str:
    """A metric of the tasks by its full name; other metrics unchanged."""
    prefix, _, rest = wanted.partition(":")
    if prefix != TASK_METRIC:
        return wanted
    by_task = {name: metric_names(task) for name, task in tasks.items()}
    if not rest and all(task.OUTPUT_TYPE == "loglikelihood_rolling" for task in tasks.values()):
        return NEAREST["perplexity"].partition(",")[0]
    for name, (usable, refused) in by_task.items():
        metric = rest.partition(",")[0] or ("" if usable else next(iter(refused), ""))
        if metric in refused and not any(rest in _names(one) for one in usable):
            nearest = NEAREST.get(metric) or OTHERWISE.get(tasks[name].OUTPUT_TYPE, "log_likelihood")
            others = f"; of the task itself: {', '.join(usable)}" if usable else ""
            raise InputError(f"metric {metric!r} of task {name!r} {refused[metric]}: use --criterion {nearest}{others}")
    every = list(dict.fromkeys(one for usable, _ in by_task.values() for one in usable))
    fitting = [one for one in every if not rest or rest in _names(one)]
    for one in fitting:
        if all(one in usable for usable, _ in by_task.values()):
            return one
    if fitting:
        have = "; ".join(f"{name}: {', '.join(usable) or 'none'}" for name, (usable, _) in list(by_task.items())[:4])
        raise InputError(f"the tasks have no such metric in common ({have}): search them in separate runs")
    hint = nearest_hint(wanted, every)
    raise InputError(f"no task has a metric {wanted!r} of one document; they have {', '.join(every) or 'none'}{hint}")


def _names(metric: str) -> tuple[str, str]:
    """What a metric may be called after the prefix: with and without its filter."""
    name = metric.partition(":")[2]
    return name, name.partition(",")[0]
