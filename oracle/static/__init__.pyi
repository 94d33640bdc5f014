from .curve import StaticCurve, chosen_mask, find_static
from .masks import METHODS, MaskSearch
from .plan import Plan

__all__ = ["METHODS", "MaskSearch", "Plan", "StaticCurve", "chosen_mask", "find_static"]
