from . import plots
from .comparison import compare
from .experiment import Experiment, InputError, load
from .knapsack.assignment import oracle_allocations, oracle_curve
from .knapsack.frontier import EqualQuality, Frontier
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
from .per_sequence.savings import budgets, by_sequence, minimal_budgets, savings, savings_by_criterion
from .per_sequence.set_cover import serving_allocations
from .per_sequence.similarity import similarity_by_budget, similarity_by_sequence, similarity_by_token
from .plots.axes import draw_all
from .plots.source import Source
from .report import write_report
from .summary import Summary, end_to_end_fraction, informative, summarise

__all__ = [
    "Cheap",
    "CoOccurrence",
    "EqualQuality",
    "Experiment",
    "Frontier",
    "InputError",
    "Kept",
    "LuckAdjusted",
    "NullOracle",
    "Rarity",
    "Source",
    "Summary",
    "budgets",
    "by_sequence",
    "co_occurrence",
    "compare",
    "draw_all",
    "end_to_end_fraction",
    "first_and_last",
    "informative",
    "layer_use",
    "load",
    "lost_answers",
    "luck_adjusted",
    "luck_curve",
    "metric_transfer",
    "minimal_budgets",
    "null_oracle",
    "oracle_allocations",
    "oracle_curve",
    "plots",
    "policy_curves",
    "progress_curve",
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
