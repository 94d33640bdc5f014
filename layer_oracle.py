"""Entry point of the command `oracle`, and a check that `oracle` and `analysis` are those of layer-oracle.

A file `oracle.py` or `analysis.py` of the user's own in a folder that Python searches first takes the place of the
package of that name.
"""

import sys
from collections.abc import Callable
from difflib import get_close_matches
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

    They are imported on first use, after `check_names`. An unknown name names the package that has it, or the nearest.
    """
    get, list_names, names = lazy_loader.attach_stub(package, file)

    def checked(name: str) -> Any:
        check_names()
        if name in names:
            return get(name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'{_hint(package, name, names)}")

    return checked, list_names, names


def _hint(package: str, name: str, names: list[str]) -> str:
    """Where an unknown name is found, or the nearest known one; empty for names that only Python asks for."""
    if name.startswith("_"):
        return ""
    for other, its in _public_names().items():
        if other != package and name in its:
            return f"; it is in {other}: {other}.{name}"
    near = get_close_matches(name, names, n=1)
    return f"; nearest: '{near[0]}'" if near else f"; dir({package}) lists its names"


def _public_names() -> dict[str, list[str]]:
    """The names in the stub file of each package that has one, without importing it; upper packages first."""
    stubs = [stub for name in ("oracle", "analysis") for stub in (HOME / name).rglob("__init__.pyi")]
    found = {".".join(stub.parent.relative_to(HOME).parts): str(stub) for stub in stubs}
    order = sorted(found, key=lambda package: (package.count("."), package))
    return {package: lazy_loader.attach_stub(package, found[package])[2] for package in order}


def run() -> None:
    """Runs the command line, and ends the process."""
    if line := clash():
        print(f"oracle: error: {line}", file=sys.stderr)
        sys.exit(2)
    from oracle.cli import run as run_command

    run_command()


if __name__ == "__main__":
    run()
