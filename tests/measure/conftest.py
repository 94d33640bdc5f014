"""A search of the tiny model, to be measured."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oracle.measure import Sizes
from oracle.store import Run

SMALL = {"budgets": 3, "new_tokens": 4, "rounds": 1, "batches": (1, 3), "speedups": (2,)}


@pytest.fixture(scope="session")
def small() -> Sizes:
    """Sizes that take no time."""
    return Sizes(**SMALL)


@pytest.fixture(scope="session")
def searched(search: Callable[..., Run]) -> dict[str, Run]:
    """A run by scope."""
    return {scope: search(scope=scope, evaluations=4, max_new_tokens=8) for scope in ("decode", "sequence")}


@pytest.fixture
def run(searched: dict[str, Run], tmp_path: Path) -> Iterator[Run]:
    """A run of one's own."""
    shutil.copytree(searched["decode"].folder, tmp_path / "run")
    return Run.open(tmp_path / "run")
