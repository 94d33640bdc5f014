"""Quality: metrics of an output against the references, higher is better."""

from oracle.quality.agreement import agreement
from oracle.quality.bounds import Bound, bound_for
from oracle.quality.metrics import METRICS, Kind, Metric, get_metric
from oracle.quality.text import score_text, score_texts

__all__ = ["METRICS", "Bound", "Kind", "Metric", "agreement", "bound_for", "get_metric", "score_text", "score_texts"]
