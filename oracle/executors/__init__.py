"""Where sequences are searched: in this process, or on the workers of a Ray cluster."""

from oracle.executors.hire import HERE, Workers, hire
from oracle.executors.local import Local
from oracle.executors.searcher import SIDE_BY_SIDE, Evaluating, Searcher
from oracle.executors.work import Ended, Event, Executor, Found, Item, Note, SetAside

__all__ = [
    "HERE",
    "SIDE_BY_SIDE",
    "Ended",
    "Evaluating",
    "Event",
    "Executor",
    "Found",
    "Item",
    "Local",
    "Note",
    "Searcher",
    "SetAside",
    "Workers",
    "hire",
]
