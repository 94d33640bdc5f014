"""Search strategies: ask for allocations, tell the outcomes. Imports no torch and writes no files."""

from oracle.search.archive import Archive
from oracle.search.enumeration import Spread
from oracle.search.guidance import Hints, Memory
from oracle.search.registry import PATH_STRATEGIES, STRATEGIES, get_strategy, make
from oracle.search.space import Space
from oracle.search.strategy import Problem, Strategy

__all__ = [
    "PATH_STRATEGIES",
    "STRATEGIES",
    "Archive",
    "Hints",
    "Memory",
    "Problem",
    "Space",
    "Spread",
    "Strategy",
    "get_strategy",
    "make",
]
