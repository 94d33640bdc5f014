from .base import Controller, Output, SequenceController, TokenController
from .comparison import Comparison, compare_run
from .methods.oracle_replay import OracleController, Policy
from .prompts import Example, Prompt
from .registry import CONTROLLERS
from .training_set import TrainingSet

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
