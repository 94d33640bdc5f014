"""The key of stored hidden states."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from oracle.types import Allocation

__all__ = ["SUFFIX", "Key"]

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything on which hidden states depend.

    Attributes:
        model: fingerprint of the model.
        dtype: dtype of its weights.
        unit: unit of the allocation: `layer` or `sublayer`.
        scope: `sequence` if the prompt ran the allocation, otherwise `decode`.
        prompt: token ids of the prompt.
        generated: token ids of the states, after the prompt; empty for the states of the prompt itself.
        allocation: the units that ran on these tokens, in order.
        code: version of the computing code; changes when the meaning of the numbers changes.
    """

    model: str
    dtype: str
    unit: str
    scope: str
    prompt: tuple[int, ...]
    generated: tuple[int, ...]
    allocation: Allocation
    code: str

    @cached_property
    def text(self) -> str:
        """The key as JSON; equal keys have equal texts."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "Key":
        """The key of a text.

        Raises:
            KeyError, TypeError, ValueError: if the text is not a key.
        """
        values: dict[str, Any] = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("prompt", "generated", "allocation")}
        return cls(**{**values, **lists})

    @property
    def digest(self) -> str:
        """File name stem of the key: 40 hexadecimal digits of SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:40]

    @property
    def folder(self) -> str:
        """Name of the folder of the model."""
        return re.sub(r"[^\w-]", "_", f"{self.model}-{self.dtype}", flags=re.ASCII)

    @property
    def path(self) -> str:
        """Path of the states in the store; one folder per model, so that files can be attributed without opening."""
        return f"{self.folder}/{self.digest[:2]}/{self.digest}{SUFFIX}"
