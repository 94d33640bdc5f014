"""How tasks of lm-evaluation-harness become sequences; imports nothing heavy, for help texts."""

from dataclasses import dataclass

from oracle.errors import InputError
from oracle.utils.validation import check_types, named_settings

__all__ = ["EXTRA", "OWN", "PREFIX", "TaskOptions", "task_names"]

PREFIX = "lm-eval:"
"""Beginning of the name of data that are tasks, and of a criterion that is one of their metrics."""

EXTRA = "lm-evaluation-harness is needed; install it with: pip install 'layer-oracle[lm-eval]'"

OWN = ("max_new_tokens", "stop")
"""Settings of a search that tasks can decide."""


@named_settings
@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How tasks of lm-evaluation-harness become sequences.

    Attributes:
        num_fewshot: number of examples in each prompt; None for the task's own number.
        fewshot_seed: seed of the choice of examples; the default is the harness's.
        apply_chat_template: whether the harness applies the tokenizer's chat template, with one turn per example.
        include_path: folders with task files of the user's own, which take precedence over the harness's.
        own: settings of the search that the tasks decide: among `max_new_tokens` and `stop`. Empty in a stored run,
            which has their values.
    """

    num_fewshot: int | None = None
    fewshot_seed: int = 1234
    apply_chat_template: bool = False
    include_path: tuple[str, ...] = ()
    own: tuple[str, ...] = OWN

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "include_path", tuple(self.include_path))
        object.__setattr__(self, "own", tuple(self.own))
        for name, value in (("num-fewshot", self.num_fewshot), ("fewshot-seed", self.fewshot_seed)):
            if value is not None and value < 0:
                raise InputError(f"--{name} needs at least 0, not {value}")
        if unknown := set(self.own) - set(OWN):
            raise InputError(f"tasks can decide {' and '.join(OWN)}, not {sorted(unknown)[0]!r}")

    def given(self) -> list[str]:
        """The command line options that differ from their defaults, besides `own`."""
        default = TaskOptions()
        names = ("num_fewshot", "fewshot_seed", "apply_chat_template", "include_path")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != getattr(default, name)]


def task_names(data: str) -> tuple[str, ...]:
    """The names of tasks, groups and tags in `lm-eval:NAME[,NAME...]`; empty for other data.

    Raises:
        InputError: if there is no name after the prefix.
    """
    if not data.startswith(PREFIX):
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in data.removeprefix(PREFIX).split(",") if name.strip()))
    if not names:
        raise InputError(f"--data {PREFIX}TASK[,TASK...] needs the name of a task or group, such as {PREFIX}arc_easy")
    return names
