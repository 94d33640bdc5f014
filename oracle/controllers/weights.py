"""Learned parameters of a controller in a safetensors file, with provenance."""

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
    """Writes a controller's learned parameters.

    Args:
        path: the file.
        controller: the controller, after `fit`.
        about: its settings and provenance; `key` identifies the training data.

    Raises:
        InputError: if the file cannot be written.
    """
    tensors = {name: np.ascontiguousarray(value) for name, value in controller.state().items()}
    metadata = {PROVENANCE.decode(): json.dumps(dict(about))}
    with writable(path):
        write_whole(path, lambda scratch: save_file(tensors, scratch, metadata=metadata))


def load_learned(path: Path, controller: Controller, key: str) -> bool:
    """Restores a controller from a file with this key; returns False if the file is missing, damaged or of another."""
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
