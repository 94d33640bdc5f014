"""What every package may use: progress, text, validation, paths, devices; knows nothing of the others."""

__all__: list[str] = []
