"""Costs other than layers: FLOPs from the shapes of a model, milliseconds measured on this machine.

Values and files are here; `oracle.costs.flops` counts, `oracle.costs.latency` measures, `oracle.costs.resolve` chooses
for a search, and all three need a model.
"""

from oracle.costs.costs import MEASURES, Conditions, Costs, Measure
from oracle.costs.files import costs_of_file, read_costs, write_costs

__all__ = ["MEASURES", "Conditions", "Costs", "Measure", "costs_of_file", "read_costs", "write_costs"]
