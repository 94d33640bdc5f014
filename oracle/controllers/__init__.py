"""Controllers, which decide at generation time which layers run, and their comparison with the oracle."""

import lazy_loader

# Names, listed in the stub file, are imported on first use: replaying an oracle does not import the training code.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
