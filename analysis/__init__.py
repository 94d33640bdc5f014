"""What a run says, without a model: minimal budgets, the data-set oracle, luck, and their figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, for their modules have the names of their functions and would hide them.
from analysis.compare import compare
from analysis.load import Experiment, InputError, load
from analysis.savings import savings

if TYPE_CHECKING:
    from analysis.adjusted import LuckAdjusted, luck_adjusted
    from analysis.allocations import assignment, oracle_allocations, oracle_curve
    from analysis.cheap import Cheap, what_makes_cheap
    from analysis.cover import serving_allocations
    from analysis.curve import luck_curve, progress_curve
    from analysis.frontier import EqualQuality, Frontier, equal_quality, oracle_at, oracle_frontier
    from analysis.items import Items, quality_by_cost
    from analysis.layers import CoOccurrence, co_occurrence, first_and_last, layer_use
    from analysis.luck import NullOracle, null_oracle
    from analysis.plot_data import Source
    from analysis.plots import draw_all
    from analysis.policies import policy_curves
    from analysis.report import write_report
    from analysis.savings import budgets, by_sequence, fractions, minimal_budgets, savings_by_criterion
    from analysis.similarity import similarity_by_budget, similarity_by_sequence, similarity_by_token
    from analysis.stats import equal_quality_interval, mean_interval
    from analysis.summary import Summary, end_to_end_fraction, summarise
    from analysis.transfer import metric_transfer, reference_transfer

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
    "Cheap": "cheap",
    "CoOccurrence": "layers",
    "EqualQuality": "frontier",
    "Frontier": "frontier",
    "Items": "items",
    "LuckAdjusted": "adjusted",
    "NullOracle": "luck",
    "Source": "plot_data",
    "Summary": "summary",
    "assignment": "allocations",
    "budgets": "savings",
    "by_sequence": "savings",
    "co_occurrence": "layers",
    "draw_all": "plots",
    "end_to_end_fraction": "summary",
    "equal_quality": "frontier",
    "equal_quality_interval": "stats",
    "first_and_last": "layers",
    "fractions": "savings",
    "layer_use": "layers",
    "luck_adjusted": "adjusted",
    "luck_curve": "curve",
    "mean_interval": "stats",
    "metric_transfer": "transfer",
    "minimal_budgets": "savings",
    "null_oracle": "luck",
    "oracle_allocations": "allocations",
    "oracle_at": "frontier",
    "oracle_curve": "allocations",
    "oracle_frontier": "frontier",
    "policy_curves": "policies",
    "progress_curve": "curve",
    "quality_by_cost": "items",
    "reference_transfer": "transfer",
    "savings_by_criterion": "savings",
    "serving_allocations": "cover",
    "similarity_by_budget": "similarity",
    "similarity_by_sequence": "similarity",
    "similarity_by_token": "similarity",
    "summarise": "summary",
    "what_makes_cheap": "cheap",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: a query must not wait for the libraries that only figures and intervals need."""
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), name)
    globals()[name] = value
    return value
