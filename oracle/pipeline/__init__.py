"""A search from its settings to a finished run: where sequences, engine, search, store and analysis meet."""

__all__: list[str] = []
