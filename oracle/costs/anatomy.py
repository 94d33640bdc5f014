"""Composition of a model's layers: the weights that a token multiplies, and layers of equal kind.

Works on the unmodified modules of the library; the only names relied on are those of its configurations.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from oracle.costs.costs import Conditions
from oracle.errors import InputError
from oracle.models import Decoder, LanguageModel
from oracle.models.introspection import find_layers, has_cache_index
from oracle.models.layer_call import Part

__all__ = ["Experts", "Kind", "attention_of", "decoder_layers", "kinds", "multiplied", "provenance", "shapes"]

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")
"""Configuration entries for a layer's number of experts, and for those that a token runs through."""


class Kind(NamedTuple):
    """A kind of attention: its name in the configuration, such as `full_attention`, and its window.

    The name is empty if the model has only one kind; the window is the maximum number of tokens attended to, or None.
    """

    name: str
    window: int | None


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Number of experts per layer, and of those that a token runs through."""

    count: int
    active: int

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """From a configuration; None for a dense model."""
        count, active = (
            next((value for name in names if (value := getattr(config, name, None))), None)
            for names in (EXPERTS, ACTIVE_EXPERTS)
        )
        if not isinstance(count, int) or not isinstance(active, int):
            return None
        return cls(count=count, active=active)


def decoder_layers(decoder: Decoder) -> tuple[nn.Module, nn.ModuleList]:
    """The module that holds the decoder layers, and the layers."""
    owner, name = find_layers(decoder.model)
    return owner, getattr(owner, name)


def attention_of(layer: nn.Module) -> dict[str, nn.Module]:
    """The children that form a layer's attention: those with a cache index."""
    return {name: child for name, child in layer.named_children() if has_cache_index(child)}


def multiplied(module: nn.Module, experts: Experts | None) -> int:
    """Weights of all matrices that one token multiplies: without look-ups, norms and biases; active experts only.

    Raises:
        InputError: if the number of active experts is unknown, or if weights are packed.
    """
    if isinstance(module, nn.Embedding) or "Norm" in type(module).__name__:
        return 0
    weights = {name: weight for name, weight in module.named_parameters(recurse=False) if weight.dim() > 1}
    if not all(weight.is_floating_point() for weight in weights.values()):
        raise InputError(
            f"{type(module).__name__} holds packed (quantised) weights, whose shapes are not those multiplied; "
            "choose the model without quantisation"
        )
    if any(weight.dim() > 2 for weight in weights.values()):
        # A stack of experts, whose biases look like matrices.
        return sum(_of_active(weight, experts, type(module).__name__) for weight in weights.values())
    inside = 0
    for name, child in module.named_children():
        if "experts" in name and experts is None:
            raise _unknown_experts(type(module).__name__)
        weights_of_child = multiplied(child, experts)
        if "experts" in name and isinstance(child, nn.ModuleList) and experts is not None:
            if len(child) != experts.count:
                raise _unknown_experts(type(module).__name__)
            weights_of_child = weights_of_child * experts.active // experts.count
        inside += weights_of_child
    return inside + sum(weight.numel() for weight in weights.values())


def _of_active(weight: Tensor, experts: Experts | None, name: str) -> int:
    if weight.dim() == 2:
        return 0
    if weight.dim() > 3 or experts is None or weight.shape[0] != experts.count:
        raise _unknown_experts(name)
    return weight.numel() // experts.count * experts.active


def _unknown_experts(name: str) -> InputError:
    return InputError(
        f"{name} holds experts, but the configuration lacks the number that a token runs through (looked for "
        f"{', '.join(ACTIVE_EXPERTS)}); FLOPs cannot be counted, choose another model"
    )


def kinds(config: Any, layers: int) -> list[Kind]:
    """The kind of attention of each layer."""
    names = getattr(config, "layer_types", None)
    sliding, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    if names is None:
        return [Kind("", sliding or chunk)] * layers
    return [Kind(name, sliding if "sliding" in name else chunk if "chunked" in name else None) for name in names]


def shapes(layer: nn.Module, part: Part) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Name, shape and dtype of each parameter in one part of a layer."""
    attention = attention_of(layer)
    return tuple(
        (name, tuple(weight.shape), str(weight.dtype))
        for name, weight in layer.named_parameters()
        if part == Part.WHOLE or (name.split(".")[0] in attention) == (part == Part.ATTENTION)
    )


def provenance(model: LanguageModel, conditions: Conditions) -> dict[str, Any]:
    """The entries of `Costs` that describe model, machine and conditions."""
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
