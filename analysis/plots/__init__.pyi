from .axes import (
    caption,
    controllers,
    depth_right_wrong,
    drafts,
    draw,
    layer_use,
    luck_curve,
    minimal_budgets,
    oracle_quality,
    rarity,
    skip_against_exit,
    static_masks,
    strategies,
    throughput,
)
from .source import MissingError, Source
from .style import FigureConfig

__all__ = [
    "FigureConfig",
    "MissingError",
    "Source",
    "caption",
    "controllers",
    "depth_right_wrong",
    "drafts",
    "draw",
    "layer_use",
    "luck_curve",
    "minimal_budgets",
    "oracle_quality",
    "rarity",
    "skip_against_exit",
    "static_masks",
    "strategies",
    "throughput",
]
