"""Provenance of results: package versions and the git commit."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["git_commit", "versions"]

PACKAGES = ("layer-oracle", "torch", "transformers", "tokenizers", "numpy", "scipy", "pandas", "pyarrow", "sacrebleu")
OPTIONAL = ("math-verify", "rouge-score", "lm-eval")
"""Packages that some metrics use where they are installed."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {package: _installed(package) for package in (*PACKAGES, *OPTIONAL)}
    return {"python": platform.python_version(), **{name: one for name, one in found.items() if one is not None}}


@cache
def _installed(package: str) -> str | None:
    """Version of a package, whose metadata take long to read; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the source tree, with `-dirty` if it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
