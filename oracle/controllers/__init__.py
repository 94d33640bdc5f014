"""Controllers: what decides, at generation time, which layers run; and how they compare with the oracle."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle.controllers.base import Controller, Output, SequenceController, TokenController
    from oracle.controllers.comparison import Comparison, compare_run
    from oracle.controllers.lessons import Lesson, Lessons, Opened
    from oracle.controllers.registry import CONTROLLERS
    from oracle.controllers.replay import OracleController, Policy

__all__ = [
    "CONTROLLERS",
    "Comparison",
    "Controller",
    "Lesson",
    "Lessons",
    "Opened",
    "OracleController",
    "Output",
    "Policy",
    "SequenceController",
    "TokenController",
    "compare_run",
]

_HOME = {
    "CONTROLLERS": "registry",
    "Comparison": "comparison",
    "Controller": "base",
    "Lesson": "lessons",
    "Lessons": "lessons",
    "Opened": "lessons",
    "OracleController": "replay",
    "Output": "base",
    "Policy": "replay",
    "SequenceController": "base",
    "TokenController": "base",
    "compare_run": "comparison",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: whoever replays an oracle must not wait for what trains."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.controllers' has no attribute '{name}'")
    return getattr(import_module(f"oracle.controllers.{_HOME[name]}"), name)
