"""How much of a saving is luck: null oracle, effort curve, held-out references, other metrics."""

__all__: list[str] = []
