"""Entry points of installed packages, by which these add metrics, strategies, controllers and readers of sequences."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from oracle.errors import door

__all__ = ["CONTROLLERS", "METRICS", "READERS", "STRATEGIES", "load_plugin", "plugins"]

METRICS = "layer_oracle.metrics"
STRATEGIES = "layer_oracle.strategies"
CONTROLLERS = "layer_oracle.controllers"
READERS = "layer_oracle.readers"
"""Names of the groups of entry points."""


@lru_cache(maxsize=8)
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported. The packages are installed, and so trusted."""
    return {one.name: one for one in entry_points(group=group)}


def load_plugin(group: str, name: str) -> Any:
    """What an entry point names, imported.

    Raises:
        ForeignError: if that fails.
    """
    one = plugins(group)[name]
    with door(f"importing {one.value} for {name!r} ({group})", "repair or remove the package that has it"):
        return one.load()
