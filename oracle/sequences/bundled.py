"""Where the bundled sequences are."""

from pathlib import Path

from oracle.errors import InputError

__all__ = ["BUNDLED", "bundled_path"]

BUNDLED = ("instruct",)
"""Names of the bundled data sets."""

_PACKAGE = Path(__file__).resolve().parents[1]

# Inside a wheel; in a checkout.
_FOLDERS = (_PACKAGE / "_data", _PACKAGE.parent / "data")


def bundled_path(name: str = "instruct") -> Path:
    """The JSONL file of a bundled data set.

    Raises:
        InputError: there is no bundled data set of that name, or its file is missing.
    """
    if name not in BUNDLED:
        raise InputError(f"unknown bundled data set {name!r}: there is {', '.join(BUNDLED)}")
    for folder in _FOLDERS:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            return path
    places = " or ".join(str(folder) for folder in _FOLDERS)
    raise InputError(f"the bundled {name}.jsonl must be in {places}, and is not: install layer-oracle again")
