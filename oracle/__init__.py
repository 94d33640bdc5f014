"""layer-oracle: how many layers of a language model does each sequence need?

`run_search` finds out and writes a run; `Run` reads it; `OracleController` replays it.
"""

import layer_oracle

# Names, listed in the stub file, are imported on first use: reading a run must not import torch.
__getattr__, __dir__, __all__ = layer_oracle.attach(__name__, __file__)
