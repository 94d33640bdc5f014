"""The short form of `make faults`: every fault that takes no long time, a few times."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("faults need fork", allow_module_level=True)

from faults.__main__ import FAULTS
from faults.ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "LAYER_ORACLE_HIDDEN", "PYTHONPATH"):
            patch.setenv(name, os.environ.get(name, ""))
        yield Ground(folder=tmp_path, random=random.Random(0))


def test_nothing_is_lost(ground: Ground) -> None:
    # One test, since all of them need the same processes and the same searches.
    answers = {fault.name: list(fault.tries(ground, fault.quick)) for fault in FAULTS if fault.quick}
    assert all(answers.values()), "each was tried"
    assert {name: lost for name, found in answers.items() if (lost := [one for one in found if one])} == {}
