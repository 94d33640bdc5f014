from . import plots
from .comparison import compare
from .experiment import Experiment, InputError, load
from .knapsack.assignment import assignment, oracle_allocations, oracle_curve
from .knapsack.frontier import EqualQuality, Frontier, equal_quality, oracle_at, oracle_frontier
from .knapsack.items import Items, quality_by_cost
from .luck.effort_curve import luck_curve, progress_curve
from .luck.held_out_saving import LuckAdjusted, luck_adjusted
from .luck.kept import Kept, quality_kept
from .luck.null_oracle import NullOracle, null_oracle
from .luck.rarity import Rarity, rarity
from .luck.transfer import metric_transfer, reference_transfer
from .per_sequence.layer_use import CoOccurrence, co_occurrence, first_and_last, layer_use
from .per_sequence.lost_answers import lost_answers
from .per_sequence.policies import policy_curves
from .per_sequence.predictors import Cheap, what_makes_cheap
from .per_sequence.savings import budgets, by_sequence, fractions, minimal_budgets, savings, savings_by_criterion
from .per_sequence.set_cover import serving_allocations
from .per_sequence.similarity import similarity_by_budget, similarity_by_sequence, similarity_by_token
from .plots.registry import draw_all
from .plots.source import Source
from .report import write_report
from .stats import equal_quality_interval, mean_interval
from .summary import Summary, end_to_end_fraction, summarise

__all__ = [
    "Cheap",
    "CoOccurrence",
    "EqualQuality",
    "Experiment",
    "Frontier",
    "InputError",
    "Items",
    "Kept",
    "LuckAdjusted",
    "NullOracle",
    "Rarity",
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
    "lost_answers",
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
    "plots",
    "policy_curves",
    "progress_curve",
    "quality_by_cost",
    "quality_kept",
    "rarity",
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
