"""Per-sequence results: minimal budgets, the layers they use, and what predicts them."""

__all__: list[str] = []
