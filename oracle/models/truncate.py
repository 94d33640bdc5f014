"""A plain Hugging Face model whose layer list is the allocation: the reference for verification."""

import copy
from collections.abc import Sequence as Seq
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from oracle.models.introspection import find_layers, index_names
from oracle.models.layer_call import Call, Part, merged
from oracle.models.sublayers import Shapes, stand_ins

__all__ = ["shortened", "truncated"]


def truncated(model: PreTrainedModel, calls: Seq[Call | int], shapes: Shapes | None = None) -> PreTrainedModel:
    """Copy of a model with exactly the given layers, in that order, sharing all weights with the original.

    The copy is an ordinary model of the library. No code of this project runs inside it, except the stand-ins that
    replace a layer's attention or MLP.

    Args:
        model: the full model.
        calls: the layers, or parts of layers; a repeated layer keeps one cache per occurrence. May be empty.
        shapes: of the branches, from `Decoder.sublayers`; required for parts.
    """
    shared = [*model.parameters(), *model.buffers()]
    memo: dict[int, object] = {id(tensor): tensor for tensor in shared}
    owner, name = find_layers(model)
    originals: nn.ModuleList = getattr(owner, name)
    kept, states = nn.ModuleList(), 0
    # The memo replaces the original layer list by the kept layers everywhere.
    copied = copy.deepcopy(model, {**memo, id(originals): kept})
    # The layers read their configuration and do not change it; copying it for each would cost more than the forward.
    for config in (model.config, model.config.get_text_config()):
        memo[id(config)] = config
    wanted = merged(Call(call) if isinstance(call, int) else call for call in calls)
    for call in wanted:
        layer = copy.deepcopy(originals[call.layer], dict(memo))
        if call.part != Part.WHOLE:
            assert shapes is not None, "parts of layers need the shapes of their branches"
            absent = Part.MLP if call.part == Part.ATTENTION else Part.ATTENTION
            layer._modules.update(stand_ins(originals[call.layer], shapes, absent))
        for module in layer.modules():
            for index in index_names(originals[call.layer]):
                if index in vars(module):
                    setattr(module, index, states)
        kept.append(layer)
        states += call.part != Part.MLP
    for name, value in shortened(model.config.get_text_config(), [call.layer for call in wanted]).items():
        setattr(copied.config.get_text_config(), name, value)
    return copied


def shortened(config: Any, layers: Seq[int]) -> dict[str, Any]:
    """Settings of a configuration for the kept layers only: their number and the per-layer lists."""
    lists = {name: getattr(config, name, None) for name in ("layer_types", "attention_layers")}
    kept = {name: [kinds[layer] for layer in layers] for name, kinds in lists.items() if kinds is not None}
    return {**kept, "num_hidden_layers": len(layers)}
