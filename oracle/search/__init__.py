"""Search strategies: ask for allocations, tell the outcomes. No torch, no files."""

from oracle.search.base import Strategy
from oracle.search.spread import Spread

__all__ = ["Spread", "Strategy"]
