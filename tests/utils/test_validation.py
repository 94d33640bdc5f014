"""Settings that come from a file may be anything."""

import json

import numpy as np
import pytest

from oracle.config import SearchConfig
from oracle.errors import InputError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluations", "3"),
        ("evaluations", True),
        ("evaluations", 2.5),
        ("seconds", "1"),
        ("limit", [1]),
        ("model", None),
        ("tasks", "cooking"),
        ("tasks", [1]),
        ("paths", 1),
        ("scope", {}),
        ("columns", {"prompt": 1}),
        ("columns", {"references": [None]}),
    ],
)
def test_a_setting_of_another_type_is_refused_by_name(name: str, value: object) -> None:
    stored = json.loads(json.dumps({**SearchConfig().to_dict(), name: value}))
    with pytest.raises(InputError, match="prompt|references" if name == "columns" else name):
        SearchConfig.from_dict(stored)


def test_what_suits_is_taken() -> None:
    config = SearchConfig(limit=np.int64(3), seconds=2, tolerance=np.float64(0.5), tasks=("a",))
    assert SearchConfig.from_dict({**config.to_dict(), "tasks": ["a"]}) == config
