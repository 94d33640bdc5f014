"""Stand-ins for decoder layers that record the arguments passed by the model's forward."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["Stub", "for_rows", "tensors"]


class Stub(nn.Module):
    """Stand-in for a decoder layer: records its arguments and returns a hidden state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_layer", layer)
        self.returns_tuple = False
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.hidden: Tensor | None = None
        self.replacement: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Records the arguments; returns the replacement, or the hidden states unchanged."""
        self.call, self.hidden = (args, kwargs), hidden_states
        result = hidden_states if self.replacement is None else self.replacement
        return (result,) if self.returns_tuple else result


def for_rows(value: Any, rows_G: Tensor, rows: int) -> Any:
    """The arguments restricted to some rows: indexes every tensor that has one entry per row."""
    if isinstance(value, Tensor):
        if rows == 1 or not value.dim() or value.shape[0] % rows:
            return value
        if value.shape[0] == rows:
            return value.index_select(0, rows_G)
        if value.dim() == 3 and value.shape[1] == 1:  # Bloom's position biases: one entry per row and head
            return value.unflatten(0, (rows, -1)).index_select(0, rows_G).flatten(0, 1)
        return value
    if isinstance(value, tuple):
        return tuple(for_rows(item, rows_G, rows) for item in value)
    if isinstance(value, dict):
        return {key: for_rows(item, rows_G, rows) for key, item in value.items()}
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors among the arguments, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)
