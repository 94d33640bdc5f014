from .curve import StaticCurve, chosen_mask, find_static
from .plan import Plan

__all__ = ["Plan", "StaticCurve", "chosen_mask", "find_static"]
