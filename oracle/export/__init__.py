"""Runs as data for others: a folder of the datasets library, labels for training routers, or JSON lines."""

from oracle.export.labels import labels_of, path_of
from oracle.export.write import FORMATS, Format, export

__all__ = ["FORMATS", "Format", "export", "labels_of", "path_of"]
