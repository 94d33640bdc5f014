"""Controllers, one published method per file."""

__all__: list[str] = []
