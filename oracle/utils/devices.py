"""Names of devices and of dtypes as settings take them; checked without torch, which reading a run does not load."""

import re

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["AUTO", "DTYPES", "check_device", "dtype_name"]

AUTO = "auto"
"""As a device: a GPU if there is one, else the CPU. As a dtype: the checkpoint's own on a GPU, float32 on the CPU."""

DTYPES = {
    "float32": ("fp32", "float"),
    "bfloat16": ("bf16",),
    "float16": ("fp16", "half"),
    "float64": ("fp64", "double"),
}
"""Floating-point dtypes by their canonical names in torch, each with its other spellings."""

_SPELLINGS = {spelling: name for name, others in DTYPES.items() for spelling in (name, *others)}

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def dtype_name(dtype: str) -> str:
    """The canonical name of a dtype; `auto` stays `auto`.

    Raises:
        InputError: if it is not a floating-point dtype of `DTYPES`; names the nearest.
    """
    if dtype == AUTO:
        return AUTO
    if dtype in _SPELLINGS:
        return _SPELLINGS[dtype]
    known = ", ".join(f"{name} ({', '.join(others)})" for name, others in DTYPES.items())
    hint = nearest_hint(dtype.lower(), [AUTO, *_SPELLINGS]) or "; the smallest are bfloat16 and float16"
    raise InputError(f"--dtype needs auto, {known}, not '{dtype}'{hint}")


def check_device(device: str) -> None:
    """Makes sure that a device is well named; whether it is there shows only with torch.

    Raises:
        InputError: if it is not; names the nearest.
    """
    if not _DEVICE.fullmatch(device):
        kind = device.lower().partition(":")[0]
        hint = nearest_hint("cuda" if kind == "gpu" else kind, ("cpu", "cuda", AUTO))
        raise InputError(f"--device needs auto, cpu, cuda or cuda:N, not '{device}'{hint}")
