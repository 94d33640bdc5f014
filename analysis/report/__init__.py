"""A run as one HTML file: explained numbers, interactive plots, and a table of all sequences."""

from analysis.report.write import write_report

__all__ = ["write_report"]
