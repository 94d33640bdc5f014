"""What a stored run leaves open and its model answers once: hidden-state similarity, features, measured throughput."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oracle.measure.sizes import Sizes

if TYPE_CHECKING:
    from oracle.measure.measure import due, machine_of, measure_run

__all__ = ["Sizes", "due", "machine_of", "measure_run"]

_HOME = {"due": "measure", "machine_of": "measure", "measure_run": "measure"}


def __getattr__(name: str) -> Any:
    """Imports on first use: help must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.measure' has no attribute '{name}'")
    return getattr(import_module(f"oracle.measure.{_HOME[name]}"), name)
