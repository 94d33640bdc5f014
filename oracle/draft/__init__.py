"""Self-speculative decoding: a skip mask drafts for its own full model, whose output it cannot change."""

import lazy_loader

# Names, listed in the stub file, are imported on first use: help texts must not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
