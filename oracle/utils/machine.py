"""The hardware: the device and dtype that `auto` stands for, and the description stored with a run. Needs torch."""

import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch

from oracle.errors import InputError
from oracle.utils.devices import AUTO, check_device, dtype_name

__all__ = ["Machine", "resolve_device", "resolve_dtype"]

CPU_INFO = Path("/proc/cpuinfo")


def resolve_device(device: str) -> torch.device:
    """The available torch device for a setting: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU if available, else the CPU).

    Raises:
        InputError: if the device is not available.
    """
    check_device(device)
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                f"--device {device} needs a CUDA device and a CUDA build of torch, but none was found; use auto or cpu"
            )
        count = torch.cuda.device_count()
        if found.index is not None and found.index >= count:
            raise InputError(
                f"--device {device} does not exist: the last of {count} GPUs is cuda:{count - 1}; use it or auto"
            )
    return found


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype | None:
    """The dtype of weights on a device; None for the checkpoint's own.

    Args:
        dtype: one of `oracle.utils.devices.DTYPES`, or `auto` (the checkpoint's own on a GPU, float32 on the CPU).
        device: device of the weights.

    Raises:
        InputError: if it is not a floating-point dtype.
    """
    name = dtype_name(dtype)
    if name == AUTO:
        return None if device.type == "cuda" else torch.float32
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and torch build of a computation.

    Attributes:
        device: torch's name of the device.
        gpu: name of the GPU; None on the CPU.
        dtype: of the weights.
        threads: number of CPU threads of torch.
        processor: name of the processor.
        instructions: widest instruction set of torch's CPU kernels, such as `AVX2` or `AVX512`.
        torch_version: with its build, such as `2.13.0+cpu`.
    """

    device: str
    gpu: str | None
    dtype: str
    threads: int
    processor: str
    instructions: str
    torch_version: str

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Self:
        """This machine, for computations on a device with weights of a dtype."""
        return cls(
            device=str(device),
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            dtype=str(dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            processor=_processor(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            torch_version=str(torch.__version__),
        )

    @property
    def place(self) -> str:
        """The device as text: the GPU, or the processor with its instruction set and number of threads."""
        if self.gpu is not None:
            return f"{self.device} ({self.gpu})"
        plural = "" if self.threads == 1 else "s"
        return f"{self.device} ({self.processor}, {self.instructions}), {self.threads} thread{plural}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values, for a manifest."""
        return asdict(self)


@cache
def _processor() -> str:
    """Name of the processor according to the operating system."""
    return " ".join((_from_linux() or _from_macos() or platform.processor() or platform.machine()).split())


def _from_linux() -> str:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith("model name")), "")


def _from_macos() -> str:
    if platform.system() != "Darwin":
        return ""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
