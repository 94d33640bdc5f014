"""SkipLayer (Zeng et al. 2023, arXiv 2311.15436): small models trained from scratch to skip layers, and baselines.

`run_study` trains and compares the arms, `benchmark_study` measures the two benchmark numbers, `retrofit` adds routers
to a pretrained model.
"""

import lazy_loader

# Names, listed in the stub file, are imported on first use: help texts must not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
