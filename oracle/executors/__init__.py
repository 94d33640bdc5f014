"""Executors: search sequences in processes of this machine, or on the workers of a Ray cluster."""

from oracle.executors.base import DEFAULT_WORKERS, Ended, Event, Executor, Found, Item, Note, SetAside, Workers
from oracle.executors.factory import create_executor
from oracle.executors.local import Local, Pool
from oracle.executors.plan import Plan, over_cores, plan_workers
from oracle.executors.searcher import SIDE_BY_SIDE, Searcher, SearchEvaluator
from oracle.executors.work import split_work

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
    "over_cores",
    "plan_workers",
    "split_work",
]
