"""Metrics that are functions of the user's own (`module:function`) or of installed packages (entry points).

The protocol is `MetricFunction`; `oracle.testing.check_metric` tests whether a function keeps to it.
"""

import importlib
import inspect
import math
import sys
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from oracle.errors import InputError, door
from oracle.metrics.bounds import Bound
from oracle.utils.consent import is_function_name, require
from oracle.utils.plugins import METRICS, load_plugin

__all__ = ["MetricFunction", "function_bound", "function_value", "load_function"]


class MetricFunction(Protocol):
    """A metric of one's own: a function of these three arguments.

    Higher is better; 0 stands for an output with nothing right in it, by which sequences that can tell nothing are
    found. It must depend on its arguments alone and not change them. It may have an attribute `upper_bound`, a function
    `(references, output, record, remaining) -> float`: the highest value that any continuation of an unfinished output
    by at most `remaining` tokens can have, by which `--prune` drops outputs.
    """

    def __call__(self, references: tuple[str, ...], output: str, record: Mapping[str, Any]) -> float:
        """Quality of an output.

        Args:
            references: the right answers of the sequence, after `--extract`; may be empty.
            output: the decoded output, up to the first stop text, after `--extract`.
            record: the row of the data as read from its file; of a task of lm-evaluation-harness `doc_id` and `doc`.
        """


def load_function(name: str) -> MetricFunction:
    """The function of a metric, by `module:function` or the name of an entry point.

    Raises:
        InputError: if it is not allowed, cannot be imported, or does not take the three arguments.
    """
    if is_function_name(name):
        require(name, f"metric '{name}' is a function of your own")
    return _load(name)


@lru_cache(maxsize=64)
def _load(name: str) -> MetricFunction:
    found = _imported(name) if is_function_name(name) else load_plugin(METRICS, name)
    try:
        inspect.signature(found).bind((), "", {})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metric '{name}' must be a function (references, output, record) that returns a number, but it cannot be "
            f"called so ({error}): correct its parameters, as docs/extending.md shows them"
        ) from error
    return found


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)  # as `python -m` does
    try:
        with door(f"importing {module!r} for metric '{name}'", "correct the module, or set PYTHONPATH to its folder"):
            return getattr(importlib.import_module(module), function)
    finally:
        if added:
            sys.path.remove(here)


def function_value(name: str, references: tuple[str, ...], output: str, record: Mapping[str, Any]) -> float:
    """Value of such a metric.

    Raises:
        InputError: if the function fails, or returns no finite number.
    """
    function = load_function(name)
    with door(f"metric '{name}'", "correct the function"):
        value = function(references, output, record)
    return _finite(name, value)


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"metric '{name}' must return a finite number, not {value!r:.80}: correct the function")
    return number


class FunctionBound(Bound):
    """The bound that a metric of one's own brings along."""

    def __init__(self, name: str, references: tuple[str, ...], record: Mapping[str, Any]) -> None:
        self._name, self._references, self._record = name, references, record
        self._upper = load_function(name).upper_bound  # type: ignore[attr-defined]

    def upper(self, tokens: Seq[int], text: str, remaining: int) -> float:
        """See `Bound.upper`."""
        with door(f"the upper bound of metric '{self._name}'", "correct it"):
            value = self._upper(self._references, text, self._record, remaining)
        return _finite(self._name, value)


def function_bound(name: str, references: tuple[str, ...], record: Mapping[str, Any]) -> Bound | None:
    """The bound of such a metric for one sequence; None if it brings none."""
    return FunctionBound(name, references, record) if hasattr(load_function(name), "upper_bound") else None
