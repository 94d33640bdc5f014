"""Quality: metrics of an output against the references, higher is better."""

from oracle.metrics.bounds import Bound, bound_for
from oracle.metrics.registry import METRICS, Kind, Metric, get_metric
from oracle.metrics.text import agreement, score_text, score_texts

__all__ = ["METRICS", "Bound", "Kind", "Metric", "agreement", "bound_for", "get_metric", "score_text", "score_texts"]
