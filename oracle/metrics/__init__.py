"""Quality: metrics of an output against the references, higher is better."""

from oracle.metrics.bounds import Bound, bound_for
from oracle.metrics.criterion import SLACK, least_quality, qualifies
from oracle.metrics.registry import METRICS, Kind, Metric, get_metric
from oracle.metrics.text import agreement, score_text, score_texts

__all__ = [
    "METRICS",
    "SLACK",
    "Bound",
    "Kind",
    "Metric",
    "agreement",
    "bound_for",
    "get_metric",
    "least_quality",
    "qualifies",
    "score_text",
    "score_texts",
]
