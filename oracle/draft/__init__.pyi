from .plan import METHODS, Plan
from .study import DraftStudy, find_drafts

__all__ = ["METHODS", "DraftStudy", "Plan", "find_drafts"]
