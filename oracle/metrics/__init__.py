"""Quality: metrics of an output against the references, higher is better."""

from oracle.metrics.bounds import Bound, bound_for
from oracle.metrics.choices import CHOICE_SCORES, ChoiceScore, choice_score, choice_score_name
from oracle.metrics.criterion import SLACK, least_quality, qualifies
from oracle.metrics.extraction import EXTRACTIONS, Extraction, answer_in
from oracle.metrics.functions import MetricFunction, function_bound, function_value, load_function
from oracle.metrics.registry import METRICS, TASK_METRIC, Kind, Metric, get_metric
from oracle.metrics.text import agreement, score_text, score_texts
from oracle.metrics.vacuous import VACUOUS, sees, told_nothing, why_vacuous

__all__ = [
    "CHOICE_SCORES",
    "EXTRACTIONS",
    "METRICS",
    "SLACK",
    "TASK_METRIC",
    "VACUOUS",
    "Bound",
    "ChoiceScore",
    "Extraction",
    "Kind",
    "Metric",
    "MetricFunction",
    "agreement",
    "answer_in",
    "bound_for",
    "choice_score",
    "choice_score_name",
    "function_bound",
    "function_value",
    "get_metric",
    "least_quality",
    "load_function",
    "qualifies",
    "score_text",
    "score_texts",
    "sees",
    "told_nothing",
    "why_vacuous",
]
