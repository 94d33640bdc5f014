"""Evaluation of a model on tasks, by the harness, with what it cost beside the scores."""

import io
import json
import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from lm_eval.evaluator import simple_evaluate
from lm_eval.utils import handle_non_serializable

from oracle.errors import FOREIGN, ForeignError, InputError, reason_of
from oracle.lm_eval.model import LayerOracle
from oracle.store.derived import writable
from oracle.store.files import write_text
from oracle.tasks.harness import guarded_data, open_manager, quiet
from oracle.tasks.options import TaskOptions

__all__ = ["evaluate_tasks", "score_rows", "write_results"]


def evaluate_tasks(
    lm: LayerOracle,
    tasks: Seq[str],
    options: TaskOptions,
    *,
    limit: int | None = None,
    bootstrap: int = 1000,
    samples: bool = False,
) -> dict[str, Any]:
    """The harness's results of a model on tasks and groups, with an entry `layer_oracle`: see `LayerOracle.report`.

    Args:
        lm: the model.
        tasks: names of tasks, groups or tags.
        options: number and seed of examples, template, folders of task files.
        limit: maximum number of documents per task; None for all.
        bootstrap: resamples behind the standard errors of corpus metrics.
        samples: whether the results list every document with its outputs.

    Raises:
        InputError: if a task is unknown, cannot be loaded or runs code that is not allowed, or a request cannot be run.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit needs at least 1, not {limit}; omit it for all documents")
    manager = open_manager(tasks, options)
    with guarded_data(manager, tasks), quiet():
        loaded = _loaded(manager, tasks)
    try:
        with quiet(), _silent():
            results = simple_evaluate(
                model=lm,
                tasks=loaded,
                num_fewshot=options.num_fewshot,
                fewshot_random_seed=options.fewshot_seed,
                apply_chat_template=options.apply_chat_template,
                fewshot_as_multiturn=options.apply_chat_template,
                limit=limit,
                bootstrap_iters=bootstrap,
                log_samples=samples,
                task_manager=manager,
            )
    except InputError:
        raise
    except FOREIGN as error:
        raise ForeignError(
            f"the harness cannot evaluate {', '.join(tasks)} ({reason_of(error)}); check the task files"
        ) from error
    found: dict[str, Any] = json.loads(json.dumps(results, default=handle_non_serializable))
    found["config"].pop("layer_oracle", None)  # once is enough
    return {**found, "layer_oracle": lm.report()}


@contextmanager
def _silent() -> Iterator[None]:
    """Within it, the harness prints nothing, nor do programs that it starts, and it forks no processes."""
    before = os.environ.get("DISABLE_MULTIPROC")
    kept = os.dup(2)
    try:
        os.environ["DISABLE_MULTIPROC"] = "1"  # its resampling; the seeds are the same
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if before is None:
            os.environ.pop("DISABLE_MULTIPROC", None)
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _loaded(manager: Any, names: Seq[str]) -> list[Any]:
    """The harness's tasks and groups of these names, those inside a group left out."""
    found = manager.load(list(names))
    inside = {child for children in found["group_map"].values() for child in children}
    return [one for kind in ("groups", "tasks") for name, one in found[kind].items() if name not in inside]


def write_results(results: dict[str, Any], path: Path) -> None:
    """Writes results as JSON, whole or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    with writable(path):
        write_text(path, json.dumps(results, indent=2) + "\n")


def score_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per task or group, metric and filter: `task`, `metric`, `filter`, `value`, `stderr`, `documents`."""
    rows = []
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = values.get(f"{metric}_stderr,{filter_name}")
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": filter_name,
                    "value": value,
                    "stderr": error if isinstance(error, int | float) else None,
                    "documents": values.get("sample_len"),
                }
            )
    return rows
