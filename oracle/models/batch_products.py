"""Float32 products of batches by oneDNN, on processors on which the library's own products are slow.

PyTorch computes float32 products by Intel's MKL, which does not use the AVX-512 instructions of other makers'
processors; oneDNN, which PyTorch contains as well, does, and is two to three times as fast there. Both compute in
float32 and round differently, so that only batches are computed by it, whose near-ties are decided alone, by the
library's own products; the difference is part of the rounding that is measured when a model is loaded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

__all__ = ["BatchProducts"]

LEAST_WEIGHTS = 1 << 16
"""Weights of a layer's product from which it is worth another call."""

ROWS = 8
"""Rows of the product that is tried, and of which heights are multiples: oneDNN keeps code for every height, a third of
a MiB each."""

FORWARD = "forward"


class BatchProducts:
    """The products of a network's layers, by oneDNN.

    Args:
        layers: the layers; linear modules of other kinds, dtypes and devices keep their own products.
    """

    def __init__(self, layers: nn.Module) -> None:
        linears = [module for module in layers.modules() if isinstance(module, nn.Linear)]
        self._forwards = [(module, _by_onednn(module)) for module in linears if _eligible(module)]

    @classmethod
    def of(cls, layers: nn.Module) -> Self | None:
        """The products of some layers; None where they are not faster or not possible."""
        if not _suits():
            return None
        found = cls(layers)
        return found if found._forwards and found._works() else None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Context in which the layers' products are computed by oneDNN."""
        # Around the module's own registry of attributes, which is slow.
        for module, forward in self._forwards:
            module.__dict__[FORWARD] = forward
        try:
            yield
        finally:
            for module, _ in self._forwards:
                del module.__dict__[FORWARD]

    @torch.inference_mode()
    def _works(self) -> bool:
        """Whether a product is that of the library, but for rounding."""
        module, forward = self._forwards[0]
        rows_RD = torch.linspace(-1, 1, ROWS * module.in_features).view(ROWS, -1)
        try:
            found = forward(rows_RD)
        except (RuntimeError, TypeError, NotImplementedError):  # another version of torch
            return False
        expected = linear(rows_RD, module.weight, module.bias)
        allowed = 2 * module.in_features * torch.finfo(torch.float32).eps * rows_RD.norm(dim=1).amax()
        return bool((found - expected).abs().amax() <= allowed * module.weight.norm(dim=1).amax())


def _suits() -> bool:
    """Whether this is such a processor, and this build of torch has the product."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    wide = capabilities.get("avx512_f", False) and "AMD" in str(capabilities.get("cpu_name", ""))
    return bool(wide and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def _eligible(module: nn.Linear) -> bool:
    if type(module) is not nn.Linear or FORWARD in module.__dict__:
        return False
    weight = module.weight
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() >= LEAST_WEIGHTS


def _by_onednn(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    product = torch.ops.mkldnn._linear_pointwise.default

    def forward(rows: Tensor) -> Tensor:
        flat_RD = rows.reshape(-1, module.in_features)
        missing = -len(flat_RD) % ROWS
        padded_RD = pad(flat_RD, (0, 0, 0, missing)) if missing else flat_RD
        found_RD = product(padded_RD, module.weight, module.bias, "none", [], "")
        return found_RD[: len(flat_RD)].view(*rows.shape[:-1], module.out_features)

    return forward
