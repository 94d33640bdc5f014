"""A little text to learn from."""

from pathlib import Path

import numpy as np
import pytest
from skiplayer.small import SMALL


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    rng = np.random.default_rng(0)
    words = ["river", "stone", "window", "morning", "letter", "garden", "paper", "silver"]
    lines = [" ".join(rng.choice(words, 9)) + f" {number}." for number in range(300)]
    path.write_text("\n\n".join(lines))
    return path


@pytest.fixture
def small(text_file: Path) -> dict[str, object]:
    return {**SMALL, "text": (str(text_file),)}
