from .measure import due, machine_of, measure_run
from .sizes import Sizes

__all__ = ["Sizes", "due", "machine_of", "measure_run"]
