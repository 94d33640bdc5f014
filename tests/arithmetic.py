"""Arithmetic that rounds as other processors might: a result depends on where it stands and what it is computed with.

Real processors choose the kernel of a matrix product by its shape, and the order of its sums by the row; the same
numbers then come out a few units in the last place apart. `Hostile` does so on any machine, by a fixed rule.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Hostile"]

PRODUCTS = frozenset(
    {
        "linear",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "matmul",
        "mv",
        "addmv",
        "_grouped_mm",
        "einsum",
        "conv1d",
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_efficient_attention",
    }
)
"""Operators of torch that sum products."""


class Hostile(TorchDispatchMode):
    """While active, every product is off by up to some units in the last place.

    The error of an element is fixed by the shapes of operands and result and by its row and column: the same pass
    repeated gives the same bits, another height or another row of the batch does not.

    Args:
        ulp: the largest error, in units in the last place of the dtype; 0 changes nothing.

    Attributes:
        moved: number of products that were changed.
    """

    def __init__(self, ulp: int) -> None:
        super().__init__()
        self.ulp = ulp
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.ulp == 0 or func.overloadpacket.__name__ not in PRODUCTS:
            return result
        self.moved += 1
        first = result[0] if isinstance(result, tuple) else result
        inner = next((arg.shape[-1] for arg in args if isinstance(arg, Tensor)), 0)
        rows, columns = first.numel() // max(1, first.shape[-1]), first.shape[-1]
        errors = _errors(rows, columns, (*first.shape, inner), self.ulp).to(first.device)
        moved = first * (1 + errors.view(first.shape) * torch.finfo(first.dtype).eps).to(first.dtype)
        return (moved, *result[1:]) if isinstance(result, tuple) else moved


@cache
def _errors(rows: int, columns: int, shape: tuple[int, ...], ulp: int) -> Tensor:
    """Errors in units in the last place, from -ulp to ulp (rows, columns)."""
    seed = 0
    for size in shape:
        seed = (seed * 1_000_003 + size) % 2**31
    generator = torch.Generator().manual_seed(seed)
    # One kernel a row: the error of a row is its own, with a smaller part that differs by column.
    row = torch.randint(-ulp, ulp + 1, (rows, 1), generator=generator)
    column = torch.randint(-ulp, ulp + 1, (1, columns), generator=generator)
    return ((row + column) / 2).to(torch.float64)
