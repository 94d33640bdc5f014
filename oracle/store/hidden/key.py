"""What hidden states are known by."""

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
    """Everything that the states of some tokens depend on.

    Attributes:
        model: fingerprint of the model.
        dtype: of its weights.
        unit: what the allocation is made of: `layer` or `sublayer`.
        scope: `decode` if the prompt ran at full depth, `sequence` if it ran the allocation.
        prompt: token ids of the prompt.
        generated: token ids after the prompt whose states these are; empty for the states of the prompt itself.
        allocation: the units that ran on these tokens, in order.
        code: version of what computes the states: moves when the meaning of the numbers does.
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
        """The key whose text this is.

        Raises:
            KeyError, TypeError, ValueError: if it is no key's.
        """
        values: dict[str, Any] = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("prompt", "generated", "allocation")}
        return cls(**{**values, **lists})

    @property
    def digest(self) -> str:
        """The key as a file name."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:40]

    @property
    def folder(self) -> str:
        """Where the states of the same model lie."""
        return re.sub(r"[^\w-]", "_", f"{self.model}-{self.dtype}", flags=re.ASCII)

    @property
    def path(self) -> str:
        """Where the states lie: a folder a model, so that nothing must be opened to say what belongs to which."""
        return f"{self.folder}/{self.digest[:2]}/{self.digest}{SUFFIX}"
