"""Tasks loaded by lm-evaluation-harness from its own task files and the user's.

Task files are data. Their templates run in jinja's sandbox, and Python code of the user's own files (`!function`, or a
metric that would be downloaded as code) runs only if their folder is allowed: see `oracle.utils.consent`.
"""

import io
import logging
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

from oracle.errors import FOREIGN, ForeignError, InputError, reason_of
from oracle.tasks.options import EXTRA, TaskOptions
from oracle.utils.consent import require
from oracle.utils.hub import quick_hub
from oracle.utils.text import nearest_hint

__all__ = [
    "UNCONDITIONAL",
    "generation_settings",
    "guarded_data",
    "load_tasks",
    "open_manager",
    "quiet",
    "require_harness",
]

OFFLINE = (
    "without a network, put its files where you like and name them in a task file of your own: include the harness's "
    "task file, set dataset_path: json and dataset_kwargs: {data_files: {test: FILE.jsonl}}, and give its folder with "
    "--include-path"
)
"""What to do about a data set that cannot be loaded."""

MEND = "correct its task file, or choose another task"

PACKAGED = ("json", "csv", "parquet", "arrow", "text", "xml", "pandas", "imagefolder", "audiofolder", "webdataset")
"""Names of `datasets` loaders of local files, which are no names on the hub."""

GREEDY = ("do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p")
"""Generation settings without effect on greedy decoding."""


DEEPEST = 8
"""Nesting of groups that is followed."""

UNCONDITIONAL = ("acc_mutual_info",)
"""Metrics for which the harness adds requests without the prompt; a sequence has none."""


def require_harness() -> None:
    """Imports the harness.

    Raises:
        InputError: if it is not installed.
    """
    try:
        from lm_eval import __version__  # noqa: F401 - a folder of that name has none
    except ImportError as error:
        raise InputError(EXTRA) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, the harness shows no progress bars and logs errors only."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def open_manager(names: Seq[str], options: TaskOptions) -> Any:
    """The harness's `TaskManager`, which knows these tasks, groups and tags.

    Raises:
        InputError: if the harness is not installed, a folder or a name does not exist, or task files of the user's own
            run code that is not allowed.
    """
    require_harness()
    folders = []
    for folder in options.include_path:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise InputError(f"--include-path needs a folder with task files, but '{folder}' is none")
        _require_consent(path, folder)
        folders.append(path.resolve())
    manager = _manager(tuple(folders), names)
    for name in names:
        if name not in manager.task_index:
            hint = nearest_hint(name, manager.all_tasks)
            places = " or ".join(["the harness", *(f"'{folder}'" for folder in options.include_path)])
            raise InputError(f"no task, group or tag {name!r} in {places}{hint}; 'lm_eval ls tasks' lists them")
    return manager


def _manager(folders: tuple[Path, ...], names: Seq[str]) -> Any:
    """A manager of the user's files alone if they hold all that is asked for: the harness's take seconds to index."""
    if folders:
        own = _indexed(folders, False)
        if all(name in own.task_index and own.task_index[name].yaml_path for name in names) and not any(
            own.task_index[name].kind.name == "GROUP" for name in names
        ):
            return own
    return _indexed(folders, True)


@lru_cache(maxsize=4)
def _indexed(folders: tuple[Path, ...], harness: bool) -> Any:
    from lm_eval.tasks import TaskManager

    _sandbox()
    with quiet():
        return TaskManager(include_path=list(folders) or None, include_defaults=harness)


@lru_cache(maxsize=4)
def load_tasks(names: tuple[str, ...], options: TaskOptions) -> Mapping[str, Any]:
    """The harness's tasks by name, those of groups and tags included, with their data sets.

    Raises:
        InputError: if a task or its data cannot be loaded, is not one of text, or runs code that the model writes.
    """
    manager = open_manager(names, options)
    tasks: dict[str, Any] = {}
    for name in names:
        with guarded_data(manager, [name]), quiet():
            tasks |= manager.load([name])["tasks"]
    for name, task in tasks.items():
        _check(name, task)
        _set_examples(task, options)
        for metric in UNCONDITIONAL:
            task._metric_fn_list.pop(metric, None)
    return tasks


@contextmanager
def guarded_data(manager: Any, names: Seq[str]) -> Iterator[None]:
    """Within it, tasks are loaded: without a network from local caches, and what cannot be loaded is one line.

    Raises:
        InputError: if a task runs code that the model writes, or cannot be loaded.
    """
    files = [file for name in names for file in _task_files(manager, name)]
    for one, config in files:
        if config.get("unsafe_code"):
            raise _unsafe(one)
    data = list(dict.fromkeys(path for _, file in files if isinstance(path := file.get("dataset_path"), str)))
    remote = next((path for path in data if path not in PACKAGED), ".")
    try:
        with quick_hub(remote, "dataset"):
            yield
    except InputError:
        raise
    except FOREIGN as error:
        of_data = isinstance(error, OSError) and data
        remedy = f"it needs the data set {', '.join(map(repr, data[:3]))}: {OFFLINE}" if of_data else MEND
        named = ", ".join(map(repr, names))
        raise ForeignError(f"the task {named} cannot be loaded ({reason_of(error)}); {remedy}") from error


def _set_examples(task: Any, options: TaskOptions) -> None:
    """Sets the number of examples and their seed as the harness's `simple_evaluate` does: a task's own 0 stays."""
    own = task.get_config("num_fewshot")
    if own is None:
        task.set_config(key="num_fewshot", value=options.num_fewshot or 0)
    elif own != 0 and options.num_fewshot is not None:
        task.set_config(key="num_fewshot", value=options.num_fewshot)
    task.set_fewshot_seed(seed=options.fewshot_seed)


def _check(name: str, task: Any) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"the task {name!r} has images or sound, but only text can be read: choose another task")
    if getattr(task, "UNSAFE_CODE", False):
        raise _unsafe(name)
    if not hasattr(task, "_metric_fn_list") or not hasattr(task, "_filters"):
        raise InputError(
            f"the task {name!r} is a Python class, not a task file, and cannot be searched: use it with 'oracle eval'"
        )


def _unsafe(name: str) -> InputError:
    return InputError(
        f"the task {name!r} runs code that the model writes, which is refused here: evaluate it in a sandbox of your "
        "own with 'python -m oracle.lm_eval run --model layer-oracle --confirm_run_unsafe_code'"
    )


def generation_settings(arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Stop texts and the maximum number of new tokens of a generation request, in the harness's own reading.

    Raises:
        InputError: if the request asks for anything but greedy decoding.
    """
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    with quiet():
        found = dict(normalize_gen_kwargs(dict(arguments)))
    if found["do_sample"]:
        raise InputError(
            f"a task asks for sampling ({ {name: arguments[name] for name in GREEDY if name in arguments} }), but "
            "decoding is greedy: set do_sample: false in a task file of your own"
        )
    until, most = handle_stop_sequences(found.pop("until", None), eos=None), int(found.pop("max_gen_toks"))
    unknown = {name: value for name, value in found.items() if name not in GREEDY and (name, value) != ("num_beams", 1)}
    if unknown:
        raise InputError(f"a task asks for {unknown}, but decoding is greedy: remove it in a task file of your own")
    return tuple(dict.fromkeys(text for text in until if text)), most


def _task_files(manager: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and content of the task files of a task, group or tag, as far as they are known without loading it."""
    entry = manager.task_index.get(name)
    if entry is None or depth > DEEPEST:
        return
    config = entry.cfg or {}
    children = config["task"] if isinstance(config.get("task"), list) else sorted(entry.tags) if not config else []
    if not children:
        yield name, config
    for child in children:
        if isinstance(child, dict):
            child = child.get("task") or child.get("group")
        if isinstance(child, str) and child != name:
            yield from _task_files(manager, child, depth + 1)


def _sandbox() -> None:
    """Makes the harness render its templates in jinja's sandbox: by themselves they may call anything."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    if not isinstance(utils.env, SandboxedEnvironment):
        names = ("loader", "undefined", "keep_trailing_newline")
        boxed = SandboxedEnvironment(**{name: getattr(utils.env, name) for name in names})
        boxed.filters |= utils.env.filters
        utils.env = boxed


def _require_consent(folder: Path, given: str) -> None:
    """Raises `InputError` if task files of a folder run code and the folder is not allowed."""
    for path in sorted(folder.rglob("*.yaml")):
        if code := _code_in(path.resolve(), set()):
            require(given, f"the task file '{path}' has Python code ({code})")
            return


def _code_in(path: Path, seen: set[Path]) -> str:
    """What a task file, or one that it includes, would run as code; an empty text for nothing. Runs none of it."""
    import lm_eval.api.metrics  # fills the registry
    import yaml
    from lm_eval.api.registry import metric_registry

    if path in seen or path.is_relative_to(Path(lm_eval.__file__).resolve().parent):
        return ""
    seen.add(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return ""  # the harness cannot read it either, and leaves it out
    includes: list[str] = []
    waiting: list[Any] = [root]
    walked: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in walked:
            continue
        walked.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:"):
            return f"{node.tag} {node.value if isinstance(node.value, str) else ''}".strip()
        if not isinstance(node.value, list):
            continue
        for child in node.value:
            waiting += child if isinstance(child, tuple) else [child]
            if not isinstance(child, tuple) or not isinstance(child[0].value, str):
                continue
            key, value = child[0].value, child[1]
            if key == "include":
                includes += [one.value for one in (value.value if isinstance(value.value, list) else [value])]
            if key == "hf_evaluate" and str(value.value).lower() in ("true", "yes", "on"):
                return "hf_evaluate, which downloads a metric as code"
            if key == "metric" and value.tag == "tag:yaml.org,2002:str" and value.value not in metric_registry:
                return f"metric {value.value}, which the harness does not have and would download as code"
    for include in includes:
        if code := _code_in((path.parent / str(include)).expanduser().resolve(), seen):
            return code
    return ""
