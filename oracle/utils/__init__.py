"""Utilities for every package: progress, text, validation, paths, devices. Imports none of the other packages."""

__all__: list[str] = []
