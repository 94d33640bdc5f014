"""What one process measured of a model on this machine, kept in the cache folder for the next process."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from oracle.errors import InputError
from oracle.store.atomic import replace_whole
from oracle.utils.machine import Machine
from oracle.utils.paths import cache_folder

__all__ = ["KeptMeasurement"]

SAMPLE = 16
"""Elements per weight that tell models of one architecture apart."""


class KeptMeasurement:
    """A JSON value in the cache folder, by its name, the model and the machine.

    It is read back only as it was written. Losing it costs time and nothing else: where the folder cannot be read or
    written, nothing is kept.

    Args:
        name: of what was measured, and of the folder.
        network: the model.
    """

    def __init__(self, name: str, network: PreTrainedModel) -> None:
        machine = Machine.of(network.device, network.dtype).to_dict() | {"transformers": transformers.__version__}
        digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode())
        digest.update(network.config.to_json_string().encode())
        for weight_name, weight in network.state_dict().items():
            first = weight.detach().reshape(-1)[:SAMPLE].float().cpu()
            digest.update(f"{weight_name}{tuple(weight.shape)}{weight.dtype}{first.tolist()}".encode())
        self.path: Path | None = None
        with suppress(InputError):  # without a home folder there is none for caches
            self.path = cache_folder() / name / f"{digest.hexdigest()[:16]}.json"

    def read(self) -> Any:
        """The value; None if there is none, or it is damaged."""
        if self.path is None:
            return None
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            return held["value"] if held["digest"] == _digest(held["value"]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, value: Any) -> None:
        """Keeps a value in place of an earlier one."""
        if self.path is None:
            return
        text = json.dumps({"value": value, "digest": _digest(value)}, indent=1)
        with suppress(OSError, InputError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(self.path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
