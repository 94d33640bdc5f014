"""The figures, one per file, with one style and one way to write them."""

__all__: list[str] = []
