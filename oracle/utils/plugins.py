"""Entry points of installed packages, by which these add metrics, strategies, controllers and readers of sequences."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from oracle.errors import InputError, door

__all__ = ["CONTROLLERS", "METRICS", "READERS", "STRATEGIES", "load_plugin", "plugin_class", "plugins"]

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


def plugin_class(group: str, name: str, base: type, required: str) -> Any:
    """The class that an installed package offers under a name; None if no package does.

    Args:
        group: of the entry points.
        name: of the entry point, and the class's own.
        base: what it has to derive from.
        required: what it has to be, for the message.

    Raises:
        InputError: if it is something else.
        ForeignError: if it cannot be imported.
    """
    if name not in plugins(group):
        return None
    found = load_plugin(group, name)
    if not (isinstance(found, type) and issubclass(found, base)) or getattr(found, "name", None) != name:
        raise InputError(
            f"the entry point {name!r} of {group} must be {required} with that name, not {plugins(group)[name].value}: "
            "correct the package"
        )
    return found
