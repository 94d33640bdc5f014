"""Hidden states of no model, to be kept on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from oracle.store.hidden import HiddenStore, Key

__all__ = ["KEY", "kept", "key", "put", "states"]

KEY = Key(
    model="0123456789abcdef",
    dtype="float32",
    unit="layer",
    scope="decode",
    prompt=(1, 2, 3),
    generated=(4, 5),
    allocation=(0, 2),
    code="1",
)


def key(number: int) -> Key:
    return replace(KEY, prompt=(number,))


def states(number: int = 0, dtype: str = "float32") -> np.ndarray:
    """Three states of two tokens that are four wide."""
    return (np.arange(24).reshape(3, 2, 4) + 100 * number).astype(dtype)


def put(store: HiddenStore, number: int = 0) -> Path:
    store.put(key(number), states(number), name="tiny")
    return store.folder / key(number).path


def kept(store: HiddenStore, count: int = 20) -> list[int]:
    """Which keys there are, without using them."""
    return [number for number in range(count) if (store.folder / key(number).path).exists()]
