"""Entry point of the command `oracle`, and a check that `oracle` and `analysis` are those of layer-oracle.

A file `oracle.py` or `analysis.py` of the user's own in a folder that Python searches first takes the place of the
package of that name.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lazy_loader

__all__ = ["attach", "check_names", "clash", "run"]

HOME = Path(__file__).resolve().parent


def clash() -> str | None:
    """One line that names the file in the place of a package; None if there is none."""
    for name in ("oracle", "analysis"):
        loaded = sys.modules.get(name)
        try:
            found = getattr(loaded, "__file__", None) or getattr(find_spec(name), "origin", None)
        except (ImportError, ValueError):
            found = None
        if found is not None and Path(found).resolve().parent != HOME / name:
            return (
                f"Python finds '{found}' in the place of layer-oracle's package '{name}': rename that file or folder, "
                f"or start from another folder"
            )
    return None


def check_names() -> None:
    """Makes sure that both packages are those of layer-oracle.

    Raises:
        ImportError: names the file that takes the place of one.
    """
    if line := clash():
        raise ImportError(line)


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose public names its stub file lists.

    They are imported on first use, after `check_names`.
    """
    get, list_names, names = lazy_loader.attach_stub(package, file)

    def checked(name: str) -> Any:
        check_names()
        return get(name)

    return checked, list_names, names


def run() -> None:
    """Runs the command line, and ends the process."""
    if line := clash():
        print(f"oracle: error: {line}", file=sys.stderr)
        sys.exit(2)
    from oracle.cli import run as run_command

    run_command()


if __name__ == "__main__":
    run()
