"""The figures, one per file, with one style and one writer."""

__all__: list[str] = []
