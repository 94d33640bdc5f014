"""Which model, where and under which conditions a cost was found."""

from typing import Any

import torch

from oracle.costs.conditions import Conditions
from oracle.models import LanguageModel

__all__ = ["provenance"]


def provenance(model: LanguageModel, conditions: Conditions) -> dict[str, Any]:
    """The entries of `Costs` that say so."""
    device = model.network.device
    return {
        "unit": conditions.unit,
        "context": conditions.context,
        "batch": conditions.batch,
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads",
        "model": model.name,
        "fingerprint": model.fingerprint,
    }
