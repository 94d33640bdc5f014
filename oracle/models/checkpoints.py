"""Tensors in safetensors files with JSON metadata, and the training state of a network (weights and Adam's moments)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from oracle.errors import InputError
from oracle.store.derived import writable
from oracle.store.files import write_whole
from oracle.store.index import difference

__all__ = ["load_training", "read_tensors", "save_training", "write_tensors"]

ABOUT = "about"
"""Key of the JSON metadata."""

MOMENTS = ("exp_avg", "exp_avg_sq")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors and their metadata to one file, whole or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    whole = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    with writable(path):
        write_whole(path, lambda scratch: save_file(whole, scratch, {ABOUT: json.dumps(dict(about))}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `write_tensors` wrote.

    Raises:
        InputError: if the file is missing, damaged, or not as the index of its run lists it.
    """
    try:
        if reason := difference(path):
            raise ValueError(reason)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[ABOUT])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable tensor file ({error}); delete it to compute it again") from error


def save_training(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, about: Mapping[str, Any]) -> None:
    """Writes weights and Adam's moments; `about` holds the number of steps taken as `step`.

    Raises:
        InputError: if the file cannot be written.
    """
    tensors = dict(network.state_dict())
    for name, weight in network.named_parameters():
        tensors |= {f"{moment}:{name}": optimizer.state[weight][moment] for moment in MOMENTS}
    write_tensors(path, tensors, about)


def load_training(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Restores what `save_training` wrote; returns its metadata.

    Args:
        path: the file.
        network: the network, of the same shape.
        optimizer: its Adam.
        expected: entries that the metadata must have.

    Raises:
        InputError: if the file is missing, damaged, of another network, or has other metadata.
    """
    tensors, about = read_tensors(path)
    try:
        for name, value in expected.items():
            if about[name] != value:
                raise ValueError(f"{name} is {about[name]!r}, not {value!r}")
        step = torch.tensor(float(about["step"]))
        moments = {
            weight: {moment: tensors[f"{moment}:{name}"].to(weight.device) for moment in MOMENTS}
            for name, weight in network.named_parameters()
        }
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the checkpoint '{path}' cannot be used ({error}); delete it to train again") from error
    for weight, found in moments.items():
        optimizer.state[weight] = {"step": step.clone(), **found}
    return about
