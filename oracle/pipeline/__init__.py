"""A search from its settings to a finished run: connects sequences, engine, search, store and analysis."""

__all__: list[str] = []
