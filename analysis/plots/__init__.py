"""The figures: each draws on axes of the caller's, under the caller's matplotlib settings, or into files."""

import lazy_loader

# Names, listed in the stub file, are imported on first use: reading a style must not import every figure.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
