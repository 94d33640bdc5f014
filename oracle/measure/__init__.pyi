from .measure import due, measure_run
from .sizes import Sizes

__all__ = ["Sizes", "due", "measure_run"]
