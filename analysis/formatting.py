"""Formatting of numbers and names in figures, tables and reports."""

__all__ = [
    "FEW",
    "basis",
    "counted",
    "interval_label",
    "interval_name",
    "metric_label",
    "per_token",
    "percent",
    "percent_range",
    "plain",
    "share",
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


def percent(fraction: float) -> str:
    """A fraction as text, such as `23.3 %`."""
    return f"{100 * fraction:.1f} %"


def share(fraction: float, of: int) -> str:
    """A share of a number of sequences as text: `2 of 5` for few, `23.3 %` for more than `FEW`."""
    return percent(fraction) if of > FEW else f"{fraction * of:.3g} of {of}"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of fractions as text, such as `20.1-28.3 %`, with an en dash."""
    return f"{100 * interval[0]:.1f}\N{EN DASH}{100 * interval[1]:.1f} %"


def counted(sequences: int) -> str:
    """A number of sequences as text."""
    return f"{sequences:,} sequence{'' if sequences == 1 else 's'}"


def interval_name(sequences: int) -> str:
    """What a bootstrap interval over sequences is called: of few of them it does not cover what it promises."""
    return "95 % interval" if sequences >= FEW else f"bootstrap range, too few sequences ({sequences}) for 95 %:"


def interval_label(sequences: int) -> str:
    """The same for a legend."""
    return "95 % interval" if sequences >= FEW else f"bootstrap range of {counted(sequences)}"


def basis(sequences: int, allocations: float, interval: tuple[float, float] | None) -> str:
    """Sample sizes and interval behind a figure, as text."""
    counts = f"{counted(sequences)}, {allocations:.5g} allocations each"
    return f"{counts}; {interval_name(sequences)} {percent_range(interval)}" if interval else counts


def plain(text: object) -> str:
    """Untrusted text on one line, without control characters or matplotlib's mathematics."""
    return "".join(char if char.isprintable() else " " for char in str(text)).replace("$", r"\$")
