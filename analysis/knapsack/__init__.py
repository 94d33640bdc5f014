"""The data-set oracle: one allocation per sequence under a mean budget, as a multiple-choice knapsack."""

__all__: list[str] = []
