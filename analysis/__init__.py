"""Analysis of stored runs, without a model: minimal budgets, the data-set oracle, luck, and their figures."""

import layer_oracle

# Names, listed in the stub file, are imported on first use: a query must not import plotting libraries.
__getattr__, __dir__, __all__ = layer_oracle.attach(__name__, __file__)
