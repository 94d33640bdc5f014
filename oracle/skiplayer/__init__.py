"""SkipLayer (Zeng et al. 2023, arXiv 2311.15436): small models trained from scratch to skip layers, and baselines.

`run_study` trains and compares the arms, `benchmark_study` measures the two benchmark numbers, `retrofit` adds routers
to a pretrained model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle.skiplayer.benchmark import benchmark_study
    from oracle.skiplayer.config import PRESETS, SkipConfig
    from oracle.skiplayer.retrofitting import RetrofitConfig, RoutedGate, retrofit
    from oracle.skiplayer.study import resume_study, run_study

__all__ = [
    "PRESETS",
    "RetrofitConfig",
    "RoutedGate",
    "SkipConfig",
    "benchmark_study",
    "resume_study",
    "retrofit",
    "run_study",
]

_HOME = {
    "PRESETS": "config",
    "RetrofitConfig": "retrofitting",
    "RoutedGate": "retrofitting",
    "SkipConfig": "config",
    "resume_study": "study",
    "retrofit": "retrofitting",
    "run_study": "study",
    "benchmark_study": "benchmark",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that the command line's help does not load torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'oracle.skiplayer' has no attribute '{name}'")
    value = getattr(import_module(f"oracle.skiplayer.{_HOME[name]}"), name)
    globals()[name] = value
    return value
