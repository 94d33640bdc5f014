"""Runs as data for others, and one allocation of a run as a checkpoint or a recipe."""

from oracle.export.deploy import DEPLOYMENTS, deploy
from oracle.export.labels import labels_of, path_of
from oracle.export.write import FORMATS, Format, export

__all__ = ["DEPLOYMENTS", "FORMATS", "Format", "deploy", "export", "labels_of", "path_of"]
