"""Cache folders on this machine, and the path nearest to one that does not exist."""

import os
from pathlib import Path

from oracle.errors import InputError
from oracle.utils.text import nearest_names

__all__ = ["cache_folder", "hidden_folder", "nearest_path"]


def cache_folder() -> Path:
    """Folder of reproducible data: `$LAYER_ORACLE_CACHE`, or `layer-oracle` in the user's cache folder.

    Raises:
        InputError: if the user, or the one that the variable names with `~`, has no home folder.
    """
    named = os.environ.get("LAYER_ORACLE_CACHE")
    if named:
        return _expanded(named, "LAYER_ORACLE_CACHE")
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "LAYER_ORACLE_CACHE") / "layer-oracle"


def hidden_folder() -> Path:
    """Folder of hidden states: `$LAYER_ORACLE_HIDDEN`, or `hidden` in the cache folder.

    Raises:
        InputError: as for `cache_folder`.
    """
    named = os.environ.get("LAYER_ORACLE_HIDDEN")
    return _expanded(named, "LAYER_ORACLE_HIDDEN") if named else cache_folder() / "hidden"


def _expanded(path: str, variable: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"a home folder is required for the cache folder '{path}', but there is none; name a folder by its full "
            f"path in the environment variable {variable}"
        ) from None


def nearest_path(path: Path) -> str:
    """`"; nearest: 'P'"` for a path that does not exist, where its folder has a similar name; else an empty string."""
    try:
        found = [] if path.exists() else nearest_names(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:  # the folder does not exist either, or cannot be read
        return ""
    return "".join(f"; nearest: '{path.with_name(name)}'" for name in found)
