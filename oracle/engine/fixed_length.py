"""The engine whose decoding speed is measured."""

from dataclasses import replace

from oracle.engine.decode import Settings
from oracle.engine.engine import Engine

__all__ = ["FixedLengthEngine"]


class FixedLengthEngine(Engine):
    """An engine without stop tokens, so that batches stay whole, and without reruns; products are the library's."""

    def _settings(self, rows: int, *, products: bool = False) -> Settings:
        return replace(super()._settings(rows), stop=frozenset(), stop_texts=None, tie=-1.0)
