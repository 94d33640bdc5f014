"""Where sequences are searched: in this process, or on the workers of a Ray cluster."""

from oracle.executors.base import HERE, Ended, Event, Executor, Found, Item, Note, SetAside, Workers
from oracle.executors.factory import create_executor
from oracle.executors.local import Local
from oracle.executors.searcher import SIDE_BY_SIDE, Evaluating, Searcher

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
    "create_executor",
]
