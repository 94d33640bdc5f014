"""What a controller has learned, as a safetensors file that says where it came from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from oracle.controllers.base import Controller
from oracle.store.derived import PROVENANCE, writable
from oracle.store.files import write_whole

__all__ = ["load_learned", "save_learned"]


def save_learned(path: Path, controller: Controller, about: Mapping[str, Any]) -> None:
    """Writes what a controller has learned.

    Args:
        path: the file.
        controller: after `fit`.
        about: its settings and provenance; `key` tells apart what was learned from what.

    Raises:
        InputError: if it cannot be written.
    """
    tensors = {name: np.ascontiguousarray(value) for name, value in controller.state().items()}
    metadata = {PROVENANCE.decode(): json.dumps(dict(about))}
    with writable(path):
        write_whole(path, lambda scratch: save_file(tensors, scratch, metadata=metadata))


def load_learned(path: Path, controller: Controller, key: str) -> bool:
    """Gives a controller what one of the same settings has learned; returns whether there was anything of this key."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "np") as file:
            if json.loads((file.metadata() or {})[PROVENANCE.decode()])["key"] != key:
                return False
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        controller.restore(state)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError):
        return False
    return True
