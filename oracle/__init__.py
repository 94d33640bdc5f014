"""layer-oracle: how many layers of a language model does each sequence need?

`run_search` finds out and writes a run; `Run` reads it; `OracleController` replays it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle.config import SearchConfig
    from oracle.controllers import OracleController
    from oracle.errors import InputError
    from oracle.models import LanguageModel, load_model
    from oracle.pipeline.run import resume_search, run_search
    from oracle.sequences import Columns, Layout, load_sequences
    from oracle.store import Run
    from oracle.types import Allocation, Outcome, Sequence

__all__ = [
    "Allocation",
    "Columns",
    "InputError",
    "LanguageModel",
    "Layout",
    "OracleController",
    "Outcome",
    "Run",
    "SearchConfig",
    "Sequence",
    "load_model",
    "load_sequences",
    "resume_search",
    "run_search",
]

_HOME = {
    "Allocation": "types",
    "Columns": "sequences",
    "InputError": "errors",
    "LanguageModel": "models",
    "Layout": "sequences",
    "OracleController": "controllers",
    "Outcome": "types",
    "Run": "store",
    "SearchConfig": "config",
    "Sequence": "types",
    "load_model": "models",
    "load_sequences": "sequences",
    "resume_search": "pipeline.run",
    "run_search": "pipeline.run",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: reading a run must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle' has no attribute '{name}'")
    value = getattr(import_module(f"oracle.{_HOME[name]}"), name)
    globals()[name] = value
    return value
