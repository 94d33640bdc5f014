"""Formatting of numbers and names in figures, tables and reports: one rule per kind of number."""

import math
from collections.abc import Callable
from typing import TypeGuard

__all__ = [
    "FEW",
    "average",
    "basis",
    "between",
    "counted",
    "decimals",
    "interval_label",
    "interval_name",
    "interval_text",
    "metric_label",
    "number",
    "per_token",
    "percent",
    "percent_range",
    "plain",
    "quality",
    "share",
    "signed",
]

FEW = 10
"""Sequences below which percentile intervals are named for what they are; up to which each is shown, without shares."""

_METRIC_LABELS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "exact match",
    "agreement": "agreement with the full model",
    "log_likelihood": "log-likelihood (nats/token)",
    "choice_accuracy": "choice accuracy",
}


def metric_label(metric: str) -> str:
    """Label of a metric, with its unit."""
    return _METRIC_LABELS.get(metric, metric)


def per_token(measure: str, verb: str = "") -> str:
    """Denominator of a fraction, for an axis: counts are per generated token too, but their names do not say so."""
    return measure if measure.endswith("/token") else f"{measure} {verb}per generated token"


def _known(value: float | None) -> TypeGuard[float]:
    """Whether there is a value: neither None nor NaN."""
    return value is not None and value == value


def percent(fraction: float | None) -> str:
    """A fraction as text, such as `23.3 %`; empty if missing."""
    return f"{100 * fraction:z.1f} %" if _known(fraction) else ""


def share(fraction: float, of: int) -> str:
    """A share of a number of sequences as text: `2 of 5` for few, `23.3 %` for more than `FEW`."""
    return percent(fraction) if of > FEW else f"{fraction * of:.3g} of {of}"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of fractions as text, such as `20.1-28.3 %`, with an en dash, or `-4.2 to 8.3 %`."""
    dash = "\N{EN DASH}" if interval[0] >= 0 else " to "
    return f"{100 * interval[0]:.1f}{dash}{100 * interval[1]:.1f} %"


def quality(value: float | None) -> str:
    """A quality or a loss with three decimals; empty if missing."""
    return decimals(value, 3)


def signed(value: float | None) -> str:
    """A difference of qualities with its sign and three decimals; empty if missing."""
    return f"{value:+z.3f}" if _known(value) else ""


def decimals(value: float | None, places: int) -> str:
    """A number with that many decimals; empty if missing."""
    return f"{value:z.{places}f}" if _known(value) else ""


def average(value: float | None) -> str:
    """A count as it is, such as `1,200`, and a mean of counts with one decimal, such as `100.8`; empty if missing."""
    if not _known(value):
        return ""
    return f"{int(value):,}" if value == int(value) else f"{value:,.1f}"


def number(value: float | None) -> str:
    """A number of unknown kind: whole ones whole, others with four significant digits; empty if missing."""
    if not _known(value):
        return ""
    if math.isinf(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def between(
    low: float | None, high: float | None, form: Callable[[float | None], str] = quality, *, word: str = "-"
) -> str:
    """An interval as text, such as `0.310 - 0.526`; empty if an end is missing."""
    return f"{form(low)} {word} {form(high)}" if _known(low) and _known(high) else ""


def counted(count: float, noun: str = "sequence") -> str:
    """A number of things as text: `1 sequence`, `24 sequences`, `100.8 allocations`."""
    return f"{average(count)} {noun}{'' if count == 1 else 's'}"


def interval_name(sequences: int) -> str:
    """What a bootstrap interval over sequences is called: of few of them it does not cover what it promises."""
    return "95 % interval" if sequences >= FEW else f"bootstrap range, too few sequences ({sequences}) for 95 %"


def interval_text(sequences: int, ends: str) -> str:
    """A bootstrap interval over sequences by its name, such as `95 % interval 31.0 to 52.6 %`."""
    return f"{interval_name(sequences)}{'' if sequences >= FEW else ':'} {ends}"


def interval_label(sequences: int) -> str:
    """The same for a legend."""
    return "95 % interval" if sequences >= FEW else f"bootstrap range of {counted(sequences)}"


def basis(sequences: int, allocations: float, interval: tuple[float, float] | None) -> str:
    """Sample sizes and interval behind a figure, as text."""
    counts = f"{counted(sequences)}, {counted(allocations, 'allocation')} each"
    return f"{counts}; {interval_text(sequences, percent_range(interval))}" if interval else counts


def plain(text: object) -> str:
    """Untrusted text on one line, without control characters or matplotlib's mathematics."""
    return "".join(char if char.isprintable() else " " for char in str(text)).replace("$", r"\$")
