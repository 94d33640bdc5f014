"""Which model, where and under which conditions a cost was found."""

from typing import Any

from oracle.costs.conditions import Conditions
from oracle.models import LanguageModel

__all__ = ["provenance"]


def provenance(model: LanguageModel, conditions: Conditions) -> dict[str, Any]:
    """The entries of `Costs` that say so."""
    machine = model.machine
    return {
        "unit": conditions.unit,
        "context": conditions.context,
        "batch": conditions.batch,
        "dtype": machine.dtype,
        "device": machine.place,
        "model": model.name,
        "fingerprint": model.fingerprint,
    }
