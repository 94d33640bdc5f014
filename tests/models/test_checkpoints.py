"""Tensor files and training states: restored exactly, or refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from oracle.errors import InputError
from oracle.models.checkpoints import load_training, read_tensors, save_training, write_tensors


def trained(steps: int) -> tuple[nn.Linear, torch.optim.Adam]:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    advance(network, optimizer, steps)
    return network, optimizer


def advance(network: nn.Linear, optimizer: torch.optim.Adam, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()


def test_tensors_and_metadata_come_back_exactly(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(2, 3)[:, ::2], "b": torch.tensor(1.5)}
    write_tensors(tmp_path / "new" / "x.safetensors", tensors, {"key": "k", "losses": [0.1, 1e-300]})
    found, about = read_tensors(tmp_path / "new" / "x.safetensors")
    assert about == {"key": "k", "losses": [0.1, 1e-300]}
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_resumed_training_takes_the_same_steps(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    network, optimizer = trained(4)
    save_training(path, network, optimizer, {"step": 4, "arm": "a"})
    again, other = trained(1)
    assert load_training(path, again, other, {"arm": "a"}) == {"step": 4, "arm": "a"}
    advance(network, optimizer, 3)
    advance(again, other, 3)
    assert torch.equal(network.weight, again.weight) and torch.equal(network.bias, again.bias)


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    network, optimizer = trained(2)
    with pytest.raises(InputError, match="not a readable tensor file"):
        load_training(path, network, optimizer, {})
    save_training(path, network, optimizer, {"step": 2, "arm": "a"})
    before = network.weight.clone()
    with pytest.raises(InputError, match="arm is 'a', not 'b'"):
        load_training(path, network, optimizer, {"arm": "b"})
    wider = nn.Linear(4, 2)
    with pytest.raises(InputError, match="cannot be used"):
        load_training(path, wider, torch.optim.Adam(wider.parameters()), {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="not a readable tensor file"):
        load_training(path, network, optimizer, {"arm": "a"})
    assert torch.equal(network.weight, before)
