"""Measurements on a stored run that need its model once: hidden-state similarity, features, throughput."""

import lazy_loader

# Names, listed in the stub file, are imported on first use: help texts must not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
