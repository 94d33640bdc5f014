"""Executors: search sequences in this process, or on the workers of a Ray cluster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oracle.executors.base import DEFAULT_WORKERS, Ended, Event, Executor, Found, Item, Note, SetAside, Workers

if TYPE_CHECKING:
    from oracle.executors.factory import create_executor
    from oracle.executors.local import Local
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
    "SearchEvaluator",
    "Searcher",
    "SetAside",
    "Workers",
    "create_executor",
]

_HOME = {
    "SIDE_BY_SIDE": "searcher",
    "Local": "local",
    "SearchEvaluator": "searcher",
    "Searcher": "searcher",
    "create_executor": "factory",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: a choice of workers is checked without waiting for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.executors' has no attribute '{name}'")
    return getattr(import_module(f"oracle.executors.{_HOME[name]}"), name)
