"""A run as one HTML file: numbers with what they mean, plots to explore, and every sequence to open."""

from analysis.report.write import write_report

__all__ = ["write_report"]
