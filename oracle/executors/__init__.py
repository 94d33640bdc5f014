"""Executors: search sequences in processes of this machine, or on the workers of a Ray cluster."""

from oracle.executors.base import DEFAULT_WORKERS, Ended, Event, Executor, Found, Item, Note, SetAside, Workers
from oracle.executors.factory import create_executor
from oracle.executors.local import Local, Pool
from oracle.executors.plan import Plan, plan_workers
from oracle.executors.searcher import SIDE_BY_SIDE, Searcher, SearchEvaluator

__all__ = [
    "DEFAULT_WORKERS",
    "SIDE_BY_SIDE",
    "Ended",
    "Event",
    "Executor",
    "Found",
    "Item",
    "Local",
    "Note",
    "Plan",
    "Pool",
    "SearchEvaluator",
    "Searcher",
    "SetAside",
    "Workers",
    "create_executor",
    "plan_workers",
]
