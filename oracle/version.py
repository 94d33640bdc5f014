"""The version of this package, from its metadata."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("layer-oracle")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"
