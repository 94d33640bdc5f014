from .config import SearchConfig
from .controllers import OracleController
from .engine.apply import apply
from .errors import InputError
from .models import LanguageModel, load_model
from .pipeline.run import resume_search, run_search
from .presets import preset_config
from .sequences import Columns, Layout, load_sequences
from .store import Run
from .types import Allocation, Outcome, Sequence
from .version import __version__

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
    "__version__",
    "apply",
    "load_model",
    "load_sequences",
    "preset_config",
    "resume_search",
    "run_search",
]
