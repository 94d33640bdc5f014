"""Learned parameters of a controller in a safetensors file, with provenance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oracle.controllers.base import Controller
from oracle.errors import InputError
from oracle.models.checkpoints import read_tensors, write_tensors

__all__ = ["load_learned", "network_state", "restore_network", "save_learned"]


def save_learned(path: Path, controller: Controller, about: Mapping[str, Any]) -> None:
    """Writes a controller's learned parameters.

    Args:
        path: the file.
        controller: the controller, after `fit`.
        about: its settings and provenance; `key` identifies the training data.

    Raises:
        InputError: if the file cannot be written.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in controller.state().items()}
    write_tensors(path, tensors, about)


def load_learned(path: Path, controller: Controller, key: str) -> bool:
    """Restores a controller from a file with this key; returns False if the file is missing, damaged or of another."""
    try:
        tensors, about = read_tensors(path)
        if about["key"] != key:
            return False
        controller.restore({name: one.numpy() for name, one in tensors.items()})
    except (InputError, RuntimeError, KeyError, ValueError, TypeError):
        return False
    return True


def network_state(network: torch.nn.Module | None) -> dict[str, NDArray[Any]]:
    """The weights of a network as arrays; none without a network."""
    return {name: value.cpu().numpy() for name, value in network.state_dict().items()} if network else {}


def restore_network(network: torch.nn.Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Sets the weights of a network from arrays, as from `network_state`."""
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
