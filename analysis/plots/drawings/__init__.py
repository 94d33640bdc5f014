"""Figures by name, one per file: the numbers, the words, and functions that draw on axes."""

__all__: list[str] = []
