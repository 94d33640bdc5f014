"""Names of devices and dtypes in settings, checked without importing torch."""

import re

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["AUTO", "DTYPES", "check_device", "dtype_name"]

AUTO = "auto"
"""As a device: a GPU if available, else the CPU. As a dtype: the checkpoint's own on a GPU, float32 on the CPU."""

DTYPES = {
    "float32": ("fp32", "float"),
    "bfloat16": ("bf16",),
    "float16": ("fp16", "half"),
    "float64": ("fp64", "double"),
}
"""Canonical torch names of the floating-point dtypes -> other spellings."""

_SPELLINGS = {spelling: name for name, others in DTYPES.items() for spelling in (name, *others)}

_QUANTISED = re.compile(r"(?<!\d)[1-8](?!\d)|int|quant")
"""Found in the names of formats of fewer than 16 bits."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def dtype_name(dtype: str) -> str:
    """The canonical name of a dtype; `auto` stays `auto`.

    Raises:
        InputError: if it is not in `DTYPES`; names the nearest.
    """
    if dtype == AUTO:
        return AUTO
    if dtype in _SPELLINGS:
        return _SPELLINGS[dtype]
    known = ", ".join(f"{name} ({', '.join(others)})" for name, others in DTYPES.items())
    if _QUANTISED.search(dtype.lower()):
        hint = "; the smallest are bfloat16 and float16"
    else:
        hint = nearest_hint(dtype.lower(), [AUTO, *_SPELLINGS])
    raise InputError(f"--dtype needs auto, {known}, not '{dtype}'{hint}")


def check_device(device: str) -> None:
    """Checks the name of a device, not whether it is available, which needs torch.

    Raises:
        InputError: if the name is invalid; names the nearest.
    """
    if not _DEVICE.fullmatch(device):
        kind = device.lower().partition(":")[0]
        hint = nearest_hint("cuda" if kind == "gpu" else kind, ("cpu", "cuda", AUTO))
        raise InputError(f"--device needs auto, cpu, cuda or cuda:N, not '{device}'{hint}")
