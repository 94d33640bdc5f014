"""Costs other than layers: FLOPs from the shapes of a model, milliseconds measured on this machine.

Values and files are here; `oracle.costs.flops`, `oracle.costs.latency` and `oracle.costs.resolve` (for a search) need a
model.
"""

from oracle.costs.costs import MEASURES, Conditions, Costs, Measure
from oracle.costs.files import costs_of_file, read_costs, write_costs

__all__ = ["MEASURES", "Conditions", "Costs", "Measure", "costs_of_file", "read_costs", "write_costs"]
