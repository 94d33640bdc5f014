"""Runs attention or MLP of a layer alone: a stand-in that adds nothing replaces the other.

Works on unmodified layers whose attention and MLP are branches of a residual stream, which is tested, not assumed. If a
norm follows the residual sum, a layer without its branches still changes the stream, so skipping one branch is
undefined; such models are rejected.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from oracle.errors import InputError
from oracle.models.introspection import has_cache_index
from oracle.models.layer_call import Part

__all__ = ["Shapes", "Sublayers", "stand_ins"]

Shapes = dict[str, tuple[int, int]]
"""Per branch of a layer, by name: output width, and length of the returned tuple (0: not a tuple)."""


class StandIn(nn.Module):
    """Replaces a branch and adds nothing to the residual stream.

    Args:
        branch: the module to replace.
        width: width of the branch's output.
        outputs: length of the tuple returned by the branch; 0 for a bare tensor.
    """

    def __init__(self, branch: nn.Module, *, width: int, outputs: int) -> None:
        super().__init__()
        self._signature = inspect.signature(branch.forward)
        self._width, self._outputs = width, outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Zeros, or the residual passed in."""
        given = self._signature.bind(*args, **kwargs).arguments
        hidden = next(value for value in given.values() if isinstance(value, Tensor))
        # Some families (Bloom) pass the residual in and expect the sum back.
        result = given.get("residual")
        if result is None:
            result = hidden.new_zeros((*hidden.shape[:-1], self._width))
        return (result, *(None,) * (self._outputs - 1)) if self._outputs else result


def _branches(layer: nn.Module) -> dict[Part, list[str]]:
    """Names of the children that form a layer's attention and MLP.

    Attention is the child with a cache index; every other child with a weight matrix belongs to the MLP.
    """
    found: dict[Part, list[str]] = {Part.ATTENTION: [], Part.MLP: []}
    for name, child in layer.named_children():
        if has_cache_index(child):
            found[Part.ATTENTION].append(name)
        elif any(weight.dim() > 1 for weight in child.parameters()):
            found[Part.MLP].append(name)
    return found


def stand_ins(layer: nn.Module, shapes: Shapes, part: Part) -> dict[str, StandIn]:
    """One stand-in per child of a branch, by name."""
    return {
        name: StandIn(layer.get_submodule(name), width=shapes[name][0], outputs=shapes[name][1])
        for name in _branches(layer)[part]
    }


class Sublayers:
    """Runs one branch of a layer at a time.

    Args:
        layers: the decoder layers.
        name: model name for error messages.

    Attributes:
        serial: whether attention followed by MLP equals the whole layer. In parallel blocks both read the same hidden
            state, so a layer that runs both must run whole.
        shapes: output shapes of every branch.
    """

    def __init__(self, layers: nn.ModuleList, name: str) -> None:
        self._layers, self._name = layers, name
        self.serial = True
        self.shapes: Shapes = {}
        self._absent: list[dict[Part, dict[str, StandIn]]] = []

    def find_branches(self, run: Any, hidden_RTD: Tensor) -> None:
        """Locates the branches and verifies by running them that they are branches.

        Args:
            run: runs (layer, part) on a hidden state.
            hidden_RTD: any hidden state accepted by `run`.

        Raises:
            InputError: if attention and MLP cannot be separated or are not branches of a residual stream.
        """
        for index, layer in enumerate(self._layers):
            if any(not names for names in _branches(layer).values()):
                raise InputError(f"attention and MLP of {self._name} cannot be separated; use the unit 'layer'")
            self.shapes.update(self._observe(layer, lambda: run(index, Part.WHOLE, hidden_RTD)))  # noqa: B023
            # Stand-ins for the other part while one part runs.
            self._absent.append(
                {
                    Part.ATTENTION: stand_ins(layer, self.shapes, Part.MLP),
                    Part.MLP: stand_ins(layer, self.shapes, Part.ATTENTION),
                }
            )
            with self.only(index, Part.ATTENTION), self.only(index, Part.MLP):
                nothing = run(index, Part.WHOLE, hidden_RTD)
            if not torch.equal(nothing, hidden_RTD):
                raise InputError(
                    f"a layer of {self._name} without attention and MLP still changes the hidden state (its norms "
                    "follow the residual sum), so they cannot be skipped separately; use the unit 'layer'"
                )
            attended = run(index, Part.ATTENTION, hidden_RTD)
            self.serial &= torch.equal(run(index, Part.MLP, attended), run(index, Part.WHOLE, hidden_RTD))

    @staticmethod
    def _observe(layer: nn.Module, work: Any) -> Shapes:
        seen: Shapes = {}

        def recorder(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                first = output[0] if isinstance(output, tuple) else output
                seen[name] = first.shape[-1], len(output) if isinstance(output, tuple) else 0

            return hook

        names = [name for group in _branches(layer).values() for name in group]
        handles = [layer.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
        try:
            work()
        finally:
            for handle in handles:
                handle.remove()
        return seen

    @contextmanager
    def only(self, layer: int, part: Part) -> Iterator[None]:
        """Context in which a layer runs only the given part."""
        if part == Part.WHOLE:
            yield
            return
        modules = self._layers[layer]._modules
        absent = self._absent[layer][part]
        present = {name: modules[name] for name in absent}
        modules.update(absent)
        try:
            yield
        finally:
            modules.update(present)
