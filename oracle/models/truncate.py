"""A plain Hugging Face model whose layer list really has the chosen layers only: the trust anchor."""

import copy

from torch import nn
from transformers import PreTrainedModel

from oracle.models.decoder import find_layers
from oracle.types import Allocation

__all__ = ["truncated"]


def truncated(model: PreTrainedModel, allocation: Allocation) -> PreTrainedModel:
    """A copy of a model with only the allocated layers, sharing every weight with the original.

    The copy is an ordinary model of the library: nothing of this project runs inside it.

    Args:
        model: the full model.
        allocation: a rising tuple of layer indices; may be empty.
    """
    shared = [*model.parameters(), *model.buffers()]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    owner, name = find_layers(copied)
    layers = getattr(owner, name)
    kept = nn.ModuleList(layers[index] for index in allocation)
    for position, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]
    setattr(owner, name, kept)
    _shorten(copied.config.get_text_config(), allocation)
    return copied


def _shorten(config: object, allocation: Allocation) -> None:
    """Makes a configuration describe the kept layers, per-layer lists included."""
    types = getattr(config, "layer_types", None)
    if types is not None:
        config.layer_types = [types[index] for index in allocation]  # type: ignore[attr-defined]
    config.num_hidden_layers = len(allocation)  # type: ignore[attr-defined]
