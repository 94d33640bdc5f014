"""A store of hidden states, and what it warned of."""

from pathlib import Path

import pytest

from oracle.store.hidden import HiddenStore


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> HiddenStore:
    return HiddenStore(tmp_path / "hidden", warn=said.append)
