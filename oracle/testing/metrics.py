"""The contract of a metric of one's own; see `oracle.metrics.MetricFunction`."""

import copy
import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

from oracle.metrics import MetricFunction

__all__ = ["EXAMPLES", "check_metric"]

Example = tuple[tuple[str, ...], str, Mapping[str, Any]]

EXAMPLES: tuple[Example, ...] = (
    (("Paris",), "Paris", {"prompt": "What is the capital of France?"}),
    (("Paris",), "The capital of France is Paris.", {}),
    (("Paris", "the city of Paris"), "Lyon", {"prompt": "x", "nested": {"a": [1, 2]}}),
    (("42",), "6 * 7 = 42", {"answer": 42}),
    (("Ünïcödé 文字",), "文字", {}),
    (("a reference",), "", {}),
    (("a reference",), "\x00 \ufffd \u202e", {}),
)
"""References, output and record: what a metric must be able to score."""


def check_metric(function: MetricFunction, examples: Seq[Example] = EXAMPLES) -> None:
    """Checks a metric: finite numbers that depend on its arguments alone, which stay as they are; a bound that holds.

    Args:
        function: the metric.
        examples: references, output and record of each call.

    Raises:
        AssertionError: names the rule and the call.
    """
    for references, output, record in examples:
        call = f"for references {references!r}, output {output!r}, record {record!r}"
        given = copy.deepcopy(dict(record))
        value = function(references, output, given)
        _require(_is_finite(value), f"a metric returns a finite number, not {value!r}, {call}")
        _require(given == record, f"a metric does not change the record, {call}")
        again = function(references, output, copy.deepcopy(dict(record)))
        _require(value == again, f"a metric depends on its arguments alone, but gives {value} and then {again} {call}")
        upper: Any = getattr(function, "upper_bound", None)
        for end in range(len(output) + 1) if upper is not None else ():
            bound = upper(references, output[:end], record, len(output) - end)
            _require(_is_finite(bound), f"an upper bound is a finite number, not {bound!r}, {call}")
            _require(bound >= value, f"the upper bound {bound} of {output[:end]!r} is below {value}, {call}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise AssertionError(rule)
