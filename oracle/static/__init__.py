"""Static masks: one allocation for a whole data set, found on a training part and judged on held-out sequences."""

import lazy_loader

# Names, listed in the stub file, are imported on first use: help texts must not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
