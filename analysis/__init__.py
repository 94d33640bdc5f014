"""What a run says, without a model: minimal budgets, the data-set oracle, luck, and their figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, for their modules have the names of their functions and would hide them.
from analysis.comparison import compare
from analysis.experiment import Experiment, InputError, load
from analysis.per_sequence.savings import savings

if TYPE_CHECKING:
    from analysis.knapsack.assignment import assignment, oracle_allocations, oracle_curve
    from analysis.knapsack.frontier import EqualQuality, Frontier, equal_quality, oracle_at, oracle_frontier
    from analysis.knapsack.items import Items, quality_by_cost
    from analysis.luck.effort_curve import luck_curve, progress_curve
    from analysis.luck.held_out_saving import LuckAdjusted, luck_adjusted
    from analysis.luck.null_oracle import NullOracle, null_oracle
    from analysis.luck.transfer import metric_transfer, reference_transfer
    from analysis.per_sequence.layer_use import CoOccurrence, co_occurrence, first_and_last, layer_use
    from analysis.per_sequence.policies import policy_curves
    from analysis.per_sequence.predictors import Cheap, what_makes_cheap
    from analysis.per_sequence.savings import budgets, by_sequence, fractions, minimal_budgets, savings_by_criterion
    from analysis.per_sequence.set_cover import serving_allocations
    from analysis.per_sequence.similarity import similarity_by_budget, similarity_by_sequence, similarity_by_token
    from analysis.plots.registry import draw_all
    from analysis.plots.source import Source
    from analysis.report import write_report
    from analysis.stats import equal_quality_interval, mean_interval
    from analysis.summary import Summary, end_to_end_fraction, summarise

__all__ = [
    "Cheap",
    "CoOccurrence",
    "EqualQuality",
    "Experiment",
    "Frontier",
    "InputError",
    "Items",
    "LuckAdjusted",
    "NullOracle",
    "Source",
    "Summary",
    "assignment",
    "budgets",
    "by_sequence",
    "co_occurrence",
    "compare",
    "draw_all",
    "end_to_end_fraction",
    "equal_quality",
    "equal_quality_interval",
    "first_and_last",
    "fractions",
    "layer_use",
    "load",
    "luck_adjusted",
    "luck_curve",
    "mean_interval",
    "metric_transfer",
    "minimal_budgets",
    "null_oracle",
    "oracle_allocations",
    "oracle_at",
    "oracle_curve",
    "oracle_frontier",
    "policy_curves",
    "progress_curve",
    "quality_by_cost",
    "reference_transfer",
    "savings",
    "savings_by_criterion",
    "serving_allocations",
    "similarity_by_budget",
    "similarity_by_sequence",
    "similarity_by_token",
    "summarise",
    "what_makes_cheap",
    "write_report",
]

_HOME = {
    "Cheap": "per_sequence.predictors",
    "CoOccurrence": "per_sequence.layer_use",
    "EqualQuality": "knapsack.frontier",
    "Frontier": "knapsack.frontier",
    "Items": "knapsack.items",
    "LuckAdjusted": "luck.held_out_saving",
    "NullOracle": "luck.null_oracle",
    "Source": "plots.source",
    "Summary": "summary",
    "assignment": "knapsack.assignment",
    "budgets": "per_sequence.savings",
    "by_sequence": "per_sequence.savings",
    "co_occurrence": "per_sequence.layer_use",
    "draw_all": "plots.registry",
    "end_to_end_fraction": "summary",
    "equal_quality": "knapsack.frontier",
    "equal_quality_interval": "stats",
    "first_and_last": "per_sequence.layer_use",
    "fractions": "per_sequence.savings",
    "layer_use": "per_sequence.layer_use",
    "luck_adjusted": "luck.held_out_saving",
    "luck_curve": "luck.effort_curve",
    "mean_interval": "stats",
    "metric_transfer": "luck.transfer",
    "minimal_budgets": "per_sequence.savings",
    "null_oracle": "luck.null_oracle",
    "oracle_allocations": "knapsack.assignment",
    "oracle_at": "knapsack.frontier",
    "oracle_curve": "knapsack.assignment",
    "oracle_frontier": "knapsack.frontier",
    "policy_curves": "per_sequence.policies",
    "progress_curve": "luck.effort_curve",
    "quality_by_cost": "knapsack.items",
    "reference_transfer": "luck.transfer",
    "savings_by_criterion": "per_sequence.savings",
    "serving_allocations": "per_sequence.set_cover",
    "similarity_by_budget": "per_sequence.similarity",
    "similarity_by_sequence": "per_sequence.similarity",
    "similarity_by_token": "per_sequence.similarity",
    "summarise": "summary",
    "what_makes_cheap": "per_sequence.predictors",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: a query must not wait for the libraries that only figures and intervals need."""
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), name)
    globals()[name] = value
    return value
