"""Costs other than layers: FLOPs from the shapes of a model, milliseconds measured on this machine.

Values and files are here; `oracle.costs.flops` counts and `oracle.costs.latency` measures, and both need a model.
"""

from oracle.costs.conditions import Conditions
from oracle.costs.costs import MEASURES, Costs, Measure, read_costs, write_costs

__all__ = ["MEASURES", "Conditions", "Costs", "Measure", "read_costs", "write_costs"]
