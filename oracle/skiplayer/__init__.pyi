from .benchmark import benchmark_study
from .config import PRESETS, SkipConfig
from .retrofitting import RetrofitConfig, RoutedGate, retrofit
from .study import resume_study, run_study

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
