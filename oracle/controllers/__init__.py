"""Controllers, which decide at generation time which layers run, and their comparison with the oracle."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle.controllers.base import Controller, Output, SequenceController, TokenController
    from oracle.controllers.comparison import Comparison, compare_run
    from oracle.controllers.methods.oracle_replay import OracleController, Policy
    from oracle.controllers.prompts import Example, Prompt
    from oracle.controllers.registry import CONTROLLERS
    from oracle.controllers.training_set import TrainingSet

__all__ = [
    "CONTROLLERS",
    "Comparison",
    "Controller",
    "Example",
    "OracleController",
    "Output",
    "Policy",
    "Prompt",
    "SequenceController",
    "TokenController",
    "TrainingSet",
    "compare_run",
]

_HOME = {
    "CONTROLLERS": "registry",
    "Comparison": "comparison",
    "Controller": "base",
    "Example": "prompts",
    "TrainingSet": "training_set",
    "Prompt": "prompts",
    "OracleController": "methods.oracle_replay",
    "Output": "base",
    "Policy": "methods.oracle_replay",
    "SequenceController": "base",
    "TokenController": "base",
    "compare_run": "comparison",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that replaying an oracle does not import the training code."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.controllers' has no attribute '{name}'")
    return getattr(import_module(f"oracle.controllers.{_HOME[name]}"), name)
