"""Locates a model's decoder layers and detects layer kinds that cannot be skipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from oracle.errors import InputError, door

__all__ = [
    "INDICES",
    "ExpertChoices",
    "Positions",
    "config_context",
    "context_of",
    "find_layers",
    "has_cache_index",
    "index_names",
    "path_of_layers",
    "refuse_running_states",
]

INDICES = ("layer_idx", "layer_id")
"""Attributes in which attention modules of the library store their cache index."""

LAYERS_PATH = "_layer_oracle_layers"
"""Attribute of a model that keeps the path of its list of decoder layers."""


def has_cache_index(module: nn.Module) -> bool:
    """Whether a module contains attention, detected by its cache index."""
    return any(hasattr(inner, index) for inner in module.modules() for index in INDICES)


def index_names(layers: nn.ModuleList) -> tuple[str, ...]:
    """Names of the attributes in which modules store the index of their layer.

    `INDICES`, and whatever else is the layer's index in the same module of every layer: code shipped with a model has
    names of its own.
    """
    found: set[str] | None = None
    for index, layer in enumerate(layers):
        mine = {
            name
            for module in layer.modules()
            for name, value in vars(module).items()
            if type(value) is int and value == index
        }
        found = mine if found is None else found & mine
    return tuple(dict.fromkeys((*INDICES, *sorted(found or () if len(layers) > 1 else ()))))


def find_layers(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Returns the module that holds the list of decoder layers, and the list's attribute name.

    The list is found by what the text model's own forward does: it calls every element once, in order, each on the
    hidden states that the one before returned. Numbers in the configuration play no part.

    Raises:
        InputError: if the model is not decoder-only or has no such list.
    """
    owner, _, name = path_of_layers(model).rpartition(".")
    return model.get_submodule(owner), name


def path_of_layers(model: PreTrainedModel) -> str:
    """Path of the list of decoder layers in a model, such as `model.layers`; see `find_layers`.

    Found by one forward pass, then kept with the model and its copies.
    """
    if model.config.is_encoder_decoder:
        raise InputError(
            f"a decoder-only model is required, but {type(model).__name__} is an encoder-decoder; "
            "choose a causal language model"
        )
    if LAYERS_PATH not in model.__dict__:
        model.__dict__[LAYERS_PATH] = _chained_list(model)
    return str(model.__dict__[LAYERS_PATH])


def _chained_list(model: PreTrainedModel) -> str:
    """Path of the outermost list whose elements one forward pass chains."""
    lists = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    calls: dict[str, list[tuple[int, Tensor, Tensor]]] = {path: [] for path in lists}
    handles = []

    def recorder(path: str, index: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            first = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
            result = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and isinstance(result, Tensor):
                calls[path].append((index, first, result))

        return hook

    for path, module in lists.items():
        handles += [
            child.register_forward_hook(recorder(path, index), with_kwargs=True) for index, child in enumerate(module)
        ]
    try:
        with torch.inference_mode(), door(f"one forward pass of {type(model).__name__}", "choose another model"):
            model(input_ids=torch.tensor([[0, 1, 2]], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    chained = [path for path, module in lists.items() if _is_chain(calls[path], len(module))]
    if not chained:
        raise InputError(
            f"a decoder-only model of the transformers library is required, but {type(model).__name__} has no list of "
            "decoder layers that its forward runs once each, in order; choose another model"
        )
    return min(chained, key=lambda path: (path.count("."), path))


def _is_chain(calls: list[tuple[int, Tensor, Tensor]], count: int) -> bool:
    """Whether all elements ran once, in order, on tensors of one shape like (1 T D), each on the last one's result."""
    if [index for index, _, _ in calls] != list(range(count)):
        return False
    shapes = {tuple(one.shape) for _, first, result in calls for one in (first, result)}
    if len(shapes) != 1 or len(next(iter(shapes))) < 3:
        return False
    return all(torch.equal(before[2], after[1]) for before, after in pairwise(calls))


def context_of(model: PreTrainedModel) -> int | None:
    """Longest input in tokens that the model's positions allow; None if they set no limit.

    A table of learned positions is a hard limit. Rotary positions reach as far as their scaling: `factor` times the
    original length for dynamic, yarn and the like. Linear biases (ALiBi) have no limit, nor have models whose every
    layer attends to a sliding window.
    """
    return config_context(model.config)


def config_context(config: Any) -> int | None:
    """The same as `context_of`, from a configuration."""
    config = config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if not isinstance(context, int) or getattr(config, "alibi", False):
        return None
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if not rope:
        return context  # a table of learned positions, or rotary ones of which nothing is known
    kinds = getattr(config, "layer_types", None)
    windowed = (
        all("sliding" in kind for kind in kinds) if kinds else getattr(config, "sliding_window", None) is not None
    )
    if windowed and getattr(config, "use_sliding_window", True):
        return None
    return max([context, *(_reach(one, context) for one in (rope, *rope.values()) if isinstance(one, dict))])


def _reach(rope: Mapping[str, Any], context: int) -> int:
    """Tokens that one set of rotary parameters reaches."""
    kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor")
    original = rope.get("original_max_position_embeddings") or (context if kind in ("dynamic", "yarn") else None)
    if kind in ("default", "proportional") or not factor or not original:
        return context
    return int(factor * original)


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
        context = context_of(model)
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
