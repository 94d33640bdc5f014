"""Cache folders on this machine."""

import os
from pathlib import Path

__all__ = ["cache_folder", "hidden_folder"]


def cache_folder() -> Path:
    """Folder of reproducible data: `$LAYER_ORACLE_CACHE`, or `layer-oracle` in the user's cache folder."""
    named = os.environ.get("LAYER_ORACLE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "layer-oracle"


def hidden_folder() -> Path:
    """Folder of hidden states: `$LAYER_ORACLE_HIDDEN`, or `hidden` in the cache folder."""
    named = os.environ.get("LAYER_ORACLE_HIDDEN")
    return Path(named).expanduser() if named else cache_folder() / "hidden"
