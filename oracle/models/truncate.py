"""A plain Hugging Face model whose layer list really is the allocation: the trust anchor."""

import copy
from collections.abc import Sequence as Seq

from torch import nn
from transformers import PreTrainedModel

from oracle.models.introspection import INDICES, find_layers
from oracle.models.layer_call import Call, Part
from oracle.models.sublayers import Shapes, stand_ins

__all__ = ["truncated"]


def truncated(model: PreTrainedModel, calls: Seq[Call | int], shapes: Shapes | None = None) -> PreTrainedModel:
    """A copy of a model whose layers are the given ones, in that order, sharing every weight with the original.

    The copy is an ordinary model of the library: nothing of this project runs inside it, but for the stand-ins that
    add nothing where only a layer's attention or MLP is wanted.

    Args:
        model: the full model.
        calls: the layers, or parts of layers; a layer that stands there twice keeps two caches. May be empty.
        shapes: of the branches, from `Decoder.sublayers`; needed for parts.
    """
    shared = [*model.parameters(), *model.buffers()]
    memo = {id(tensor): tensor for tensor in shared}
    owner, name = find_layers(model)
    originals: nn.ModuleList = getattr(owner, name)
    kept, states = nn.ModuleList(), 0
    # Wherever the model holds its layers, the copy holds the kept ones.
    copied = copy.deepcopy(model, {**memo, id(originals): kept})
    wanted = _merged([Call(call) if isinstance(call, int) else call for call in calls])
    for call in wanted:
        layer = copy.deepcopy(originals[call.layer], dict(memo))
        if call.part != Part.WHOLE:
            assert shapes is not None, "parts of layers need the shapes of their branches"
            absent = Part.MLP if call.part == Part.ATTENTION else Part.ATTENTION
            layer._modules.update(stand_ins(layer, shapes, absent))
        for module in layer.modules():
            for index in INDICES:
                if hasattr(module, index):
                    setattr(module, index, states)
        kept.append(layer)
        states += call.part != Part.MLP
    _shorten(copied.config.get_text_config(), [call.layer for call in wanted])
    return copied


def _merged(calls: Seq[Call]) -> list[Call]:
    """Attention directly followed by the MLP of the same layer is that layer."""
    merged: list[Call] = []
    for call in calls:
        if call.part == Part.MLP and merged and merged[-1] == Call(call.layer, Part.ATTENTION):
            merged[-1] = Call(call.layer)
        else:
            merged.append(call)
    return merged


def _shorten(config: object, layers: Seq[int]) -> None:
    """Makes a configuration describe the kept layers, per-layer lists included."""
    for name in ("layer_types", "attention_layers"):
        types = getattr(config, name, None)
        if types is not None:
            setattr(config, name, [types[layer] for layer in layers])
    config.num_hidden_layers = len(layers)  # type: ignore[attr-defined]
