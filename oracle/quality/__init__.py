"""Quality: metrics of an output against the references, higher is better."""

from oracle.quality.agreement import agreement
from oracle.quality.metrics import METRICS, Kind, Metric, get_metric
from oracle.quality.text import score_text, score_texts

__all__ = ["METRICS", "Kind", "Metric", "agreement", "get_metric", "score_text", "score_texts"]
