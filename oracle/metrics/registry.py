"""The metrics by name, with kind, lower bound and description."""

import re
from dataclasses import dataclass
from typing import Literal

from oracle.errors import InputError
from oracle.utils.consent import is_function_name
from oracle.utils.plugins import METRICS as PLUGINS
from oracle.utils.plugins import plugins
from oracle.utils.text import nearest_hint

__all__ = ["METRICS", "TASK_METRIC", "Kind", "Metric", "get_metric"]

Kind = Literal["text", "tokens", "likelihood", "choice", "function", "continuations"]

_DOTTED = re.compile(
    r"(?:\./)?(?P<module>[A-Za-z_][\w./]*?)(?:\.py(?:[:.](?P<function>[A-Za-z_]\w*))?|\.(?P<member>[A-Za-z_]\w*))"
)
"""What a function of one's own may be written as instead of `module:function`: `module.function`, `module.py`."""

TASK_METRIC = "lm-eval"
"""Criterion of a search over tasks of lm-evaluation-harness: `lm-eval` for the first metric of the tasks,
`lm-eval:METRIC` or `lm-eval:METRIC,FILTER` for another."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of quality; higher is better.

    Attributes:
        name: its key in `METRICS`.
        kind: its inputs. `text`: the decoded output and the references (`score_text`). `tokens`: the token ids of the
            output and of the full model's (`agreement`). `likelihood` and `choice`: a pass of the references or the
            choices through the model, computed by the engine. `function`: the decoded output and the record of the
            sequence, by code that is no part of this package. `continuations`: the same, by the log-likelihoods of
            the continuations that the record holds.
        floor: lower bound; None if unbounded.
        description: one line for listings, with the unit.
        always: whether it is computed for every output, not only on request.
    """

    name: str
    kind: Kind
    floor: float | None
    description: str
    always: bool = False

    @property
    def null_stored(self) -> bool:
        """Whether the value against another sequence is stored as `null_NAME`, since only the search can compute it."""
        return self.kind in ("likelihood", "function", "continuations")

    @property
    def foreign(self) -> bool:
        """Whether it is a function of the user's or of an installed package, see `oracle.metrics.load_function`."""
        return self.kind == "function" and self.name.partition(":")[0] != TASK_METRIC

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of an evaluation that hold its values."""
        if self.kind == "choice":
            return (self.name, "choice")
        return (self.name, f"null_{self.name}") if self.null_stored else (self.name,)


_ON_REQUEST: tuple[tuple[str, str], ...] = (
    ("numeric", "1 if the last number equals a reference's (or math-verify says so, where installed), else 0"),
    ("choice_letter", "1 if the letter of the chosen answer is a reference's, else 0"),
    ("token_f1", "F-measure of shared words without articles and punctuation (SQuAD), best reference; 0 to 1"),
    ("contains", "1 if the output contains a reference, up to case and white space, else 0"),
    ("rougeL-stemmed", "ROUGE-L of package rouge-score with stemming, best reference; 0 to 1"),
    ("rougeLsum", "ROUGE-Lsum of package rouge-score, line by line, best reference; 0 to 1"),
)

_METRICS: tuple[tuple[str, Kind, str], ...] = (
    ("rouge1", "text", "F-measure of shared words (ROUGE-1, no stemming), best reference; 0 to 1"),
    ("rouge2", "text", "F-measure of shared word pairs (ROUGE-2, no stemming), best reference; 0 to 1"),
    (
        "rougeL",
        "text",
        "F-measure of the longest common subsequence of words (ROUGE-L, no stemming), best reference; 0 to 1",
    ),
    ("bleu", "text", "sentence BLEU of sacrebleu with effective order, all references together; 0 to 1"),
    ("chrf", "text", "sentence chrF2 of sacrebleu, best reference; 0 to 1"),
    ("exact_match", "text", "1 if equal to a reference up to case, white space and final punctuation, else 0"),
    ("agreement", "tokens", "share of positions with the full model's token, over the longer output; 0 to 1"),
    ("log_likelihood", "likelihood", "mean log probability of the reference after the prompt, nats/token"),
    ("choice_accuracy", "choice", "1 if the right choice is the likeliest of the choices (by --choice-score), else 0"),
)

METRICS = {
    name: Metric(
        name=name,
        kind=kind,
        floor=None if kind == "likelihood" else 0.0,
        description=description,
        always=kind in ("text", "tokens"),
    )
    for name, kind, description in _METRICS
} | {name: Metric(name=name, kind="text", floor=0.0, description=line) for name, line in _ON_REQUEST}
"""The metrics by name."""


def get_metric(name: str) -> Metric:
    """The metric of that name; nothing is imported for it.

    Raises:
        InputError: if it is unknown; lists the known ones and the nearest.
    """
    if name in METRICS:
        return METRICS[name]
    if name.partition(":")[0] == TASK_METRIC:
        # With a filter it is a metric of outputs; log-likelihoods go through none.
        kind: Kind = "function" if "," in name else "continuations"
        return Metric(name=name, kind=kind, floor=0.0, description="metric of a task of lm-evaluation-harness")
    installed = plugins(PLUGINS)
    if name in installed or is_function_name(name):
        return Metric(
            name=name, kind="function", floor=0.0, description="metric of an installed package, or a function"
        )
    known = [*METRICS, *installed]
    hint = nearest_hint(name, known)
    if not hint and (found := _DOTTED.fullmatch(name)):
        module, function = found["module"].replace("/", "."), found["function"] or found["member"] or "FUNCTION"
        raise InputError(
            f"unknown metric {name!r}: a function of your own is named MODULE:FUNCTION; write {module}:{function}"
        )
    raise InputError(
        f"unknown metric {name!r}: the metrics are {', '.join(known)}, lm-eval:METRIC of a task, MODULE:FUNCTION of "
        f"your own, and those of packages that are not installed here{hint}"
    )
