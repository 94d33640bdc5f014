"""Executors: search sequences in processes of this machine, or on the workers of a Ray cluster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oracle.executors.base import DEFAULT_WORKERS, Ended, Event, Executor, Found, Item, Note, SetAside, Workers

if TYPE_CHECKING:
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

_HOME = {
    "SIDE_BY_SIDE": "searcher",
    "Local": "local",
    "Plan": "plan",
    "Pool": "local",
    "SearchEvaluator": "searcher",
    "Searcher": "searcher",
    "create_executor": "factory",
    "over_cores": "plan",
    "plan_workers": "plan",
    "split_work": "work",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: a choice of workers is checked without waiting for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.executors' has no attribute '{name}'")
    return getattr(import_module(f"oracle.executors.{_HOME[name]}"), name)
