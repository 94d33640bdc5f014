"""Faults to survive: `make faults` tries each of them, and says how often nothing was lost."""
