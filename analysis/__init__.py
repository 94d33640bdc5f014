"""What a run says, without a model: minimal budgets, the data-set oracle, luck, and their figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, for its module has the name of its function and would hide it.
from analysis.load import Experiment, InputError, load

if TYPE_CHECKING:
    from analysis.curve import luck_curve
    from analysis.frontier import (
        EqualQuality,
        Frontier,
        assignment,
        equal_quality,
        oracle_frontier,
    )
    from analysis.items import Items, quality_by_cost
    from analysis.layers import layer_use
    from analysis.luck import NullOracle, null_oracle
    from analysis.plots import draw_all
    from analysis.policies import policy_curves
    from analysis.savings import budgets, fractions, minimal_budgets
    from analysis.stats import equal_quality_interval, mean_interval
    from analysis.summary import Summary, end_to_end_fraction, summarise

__all__ = [
    "EqualQuality",
    "Experiment",
    "Frontier",
    "InputError",
    "Items",
    "NullOracle",
    "Summary",
    "assignment",
    "budgets",
    "draw_all",
    "end_to_end_fraction",
    "equal_quality",
    "equal_quality_interval",
    "fractions",
    "layer_use",
    "load",
    "luck_curve",
    "mean_interval",
    "minimal_budgets",
    "null_oracle",
    "oracle_frontier",
    "policy_curves",
    "quality_by_cost",
    "summarise",
]

_HOME = {
    "EqualQuality": "frontier",
    "Frontier": "frontier",
    "Items": "items",
    "NullOracle": "luck",
    "Summary": "summary",
    "assignment": "frontier",
    "budgets": "savings",
    "draw_all": "plots",
    "end_to_end_fraction": "summary",
    "equal_quality": "frontier",
    "equal_quality_interval": "stats",
    "fractions": "savings",
    "layer_use": "layers",
    "luck_curve": "curve",
    "mean_interval": "stats",
    "minimal_budgets": "savings",
    "null_oracle": "luck",
    "oracle_frontier": "frontier",
    "policy_curves": "policies",
    "quality_by_cost": "items",
    "summarise": "summary",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: a query must not wait for the libraries that only figures and intervals need."""
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(f"analysis.{_HOME[name]}"), name)
    globals()[name] = value
    return value
