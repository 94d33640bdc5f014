"""Locates a model's decoder layers and detects layer kinds that cannot be skipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from oracle.errors import InputError

__all__ = ["INDICES", "ExpertChoices", "Positions", "find_layers", "has_cache_index", "refuse_running_states"]

INDICES = ("layer_idx", "layer_id")
"""Attributes in which attention modules store their cache index."""


def has_cache_index(module: nn.Module) -> bool:
    """Whether a module contains attention, detected by its cache index."""
    return any(hasattr(inner, index) for inner in module.modules() for index in INDICES)


def find_layers(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Returns the module that holds the list of decoder layers, and the list's attribute name.

    Raises:
        InputError: if the model is not decoder-only or has no such list.
    """
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        raise InputError(
            f"a decoder-only model is required, but {type(model).__name__} is an encoder-decoder; "
            "choose a causal language model"
        )
    count = getattr(config, "num_hidden_layers", None)
    lists = [
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if not lists:
        raise InputError(
            f"a decoder-only model of the transformers library is required, but {type(model).__name__} has no list "
            f"of {count} decoder layers; choose another model"
        )
    return lists[0]


def refuse_running_states(model: PreTrainedModel) -> None:
    """Rejects models with state-space, linear-attention, convolution or hybrid layers, by their configuration.

    Raises:
        InputError: if the model has such layers.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    other = sorted({kind for kind in kinds if "attention" not in kind or "linear" in kind})
    if other:
        raise InputError(
            f"{type(model).__name__} has layers of kind {', '.join(other)} (state-space, linear attention or "
            "convolution), which keep a running state instead of keys and values per token; choose a model of "
            "attention layers"
        )


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Constraints of a model's attention on positions.

    Attributes:
        last: largest supported position; None if unlimited.
        windowed: whether any layer attends to a window of recent slots only; then a row's slots must have no gaps.
        mix: whether rows at different positions may share a batch; some rotary embeddings depend on the largest one.
    """

    last: int | None
    windowed: bool
    mix: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Reads the constraints from a model's configuration."""
        config = model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        kinds = getattr(config, "layer_types", None) or []
        windows = any("sliding" in kind or "chunked" in kind for kind in kinds)
        scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        settings = [scaling, *(value for value in scaling.values() if isinstance(value, dict))]
        kind_of_rope = {one.get("rope_type", one.get("type")) for one in settings}
        return cls(
            last=None if context is None else context - 1,
            windowed=windows or getattr(config, "sliding_window", None) is not None,
            mix=not kind_of_rope & {"longrope", "dynamic"},
        )


class ExpertChoices(TorchDispatchMode):
    """While active, detects whether a model selects experts, by its calls of top-k, sort or argmax.

    Attributes:
        seen: whether one was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.seen |= func.overloadpacket in (torch.ops.aten.topk, torch.ops.aten.sort, torch.ops.aten.argmax)
        return func(*args, **(kwargs or {}))
