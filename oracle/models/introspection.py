"""Locates a model's decoder layers and detects layer kinds that cannot be skipped."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from oracle.errors import InputError, door
from oracle.models.context import context_length, rope_kinds, unscaled_length
from oracle.models.layer_stubs import tensors

__all__ = [
    "ExpertChoices",
    "Positions",
    "attention_children",
    "find_layers",
    "index_names",
    "path_of_layers",
    "plain_tokens",
    "refuse_running_states",
]

INDICES = frozenset({"layer_idx", "layer_id"})
"""Attributes in which the library's attention modules store their cache index."""

LAYERS_PATH = "_layer_oracle_layers"
"""Attribute of a model, and so of its copies, that keeps the path of its list of decoder layers."""

INDEX_NAMES = "_layer_oracle_indices"
"""Attribute of a decoder layer, and so of its copies, that keeps the names found by `index_names`."""


def index_names(layer: nn.Module) -> frozenset[str]:
    """Names of the attributes in which the modules of a decoder layer store their cache index."""
    return layer.__dict__.get(INDEX_NAMES, INDICES)


def attention_children(layer: nn.Module) -> list[str]:
    """Names of the children that form a layer's attention: those that know their place in the cache."""
    names = index_names(layer)
    return [
        child_name
        for child_name, child in layer.named_children()
        if any(hasattr(inner, name) for inner in child.modules() for name in names)
    ]


def _index_names(layers: Seq[nn.Module]) -> frozenset[str]:
    """The library's names, and every attribute that numbers the layers: in each of them, all its values are the place.

    With fewer than two layers nothing can be told from values.
    """

    def numbers(layer: nn.Module, place: int) -> set[str]:
        values: dict[str, set[int]] = {}
        for module in layer.modules():
            for name, value in vars(module).items():
                if type(value) is int:
                    values.setdefault(name, set()).add(value)
        return {name for name, found in values.items() if found == {place}}

    if len(layers) < 2:
        return INDICES
    return INDICES.union(set.intersection(*(numbers(layer, place) for place, layer in enumerate(layers))))


def find_layers(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Returns the module that holds the list of decoder layers, and the list's attribute name.

    The list is the one whose members the model's own forward runs one after the other, each on the result of the one
    before, from the embeddings to the final norm. Observed in one pass, then kept with the model and its copies.

    Raises:
        InputError: if the model is not decoder-only, cannot be run on token ids, or has no such list.
    """
    owner, _, name = path_of_layers(model).rpartition(".")
    return model.get_submodule(owner), name


def path_of_layers(model: PreTrainedModel) -> str:
    """Path of the list of decoder layers in a model, such as `model.layers`; see `find_layers`."""
    if LAYERS_PATH not in model.__dict__:
        path = model.__dict__[LAYERS_PATH] = _observe(model)
        layers = list(model.get_submodule(path).children())
        names = _index_names(layers)
        for layer in layers:
            layer.__dict__[INDEX_NAMES] = names
    return str(model.__dict__[LAYERS_PATH])


def plain_tokens(model: PreTrainedModel) -> list[int]:
    """The first four token ids without a special meaning: some models place padding where nothing else stands."""
    embedding: Any = model.get_input_embeddings()
    if not isinstance(getattr(embedding, "weight", None), Tensor):
        raise InputError(
            f"a model of text with one table of embeddings is required, but {type(model).__name__} has another input; "
            "choose a causal language model"
        )
    config, generation = model.config.get_text_config(), getattr(model, "generation_config", None)
    special: set[Any] = {getattr(embedding, "padding_idx", None)}
    for owner in (config, generation):
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
            value = getattr(owner, name, None)
            special.update(value if isinstance(value, list) else [value])
    ids = list(islice((one for one in range(len(embedding.weight)) if one not in special), 4))
    if len(ids) < 4:
        raise InputError(
            f"a vocabulary of at least four ordinary tokens is required, but {type(model).__name__} has fewer"
        )
    return ids


def _observe(model: PreTrainedModel) -> str:
    """Path of the list of decoder layers."""
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError(
            f"a decoder-only model is required, but {kind} is an encoder-decoder; choose a causal language model"
        )
    lists = {path: part for path, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part)}
    calls = _calls(model, lists)
    chains = [path for path, its in calls.items() if _is_chain(its, len(lists[path]))]
    if len(chains) > 1:
        # An embedding or a router may be a list as well; decoder layers know their place in the cache.
        chains = [path for path in chains if any(_has_index(layer) for layer in lists[path])]
    if len(chains) == 1:
        return chains[0]
    several = [path for path, its in calls.items() if len({call.member for call in its}) < len(its)]
    why = (
        f"its forward runs the members of '{several[0]}' more than once"
        if several
        else f"its forward runs several lists of them ({', '.join(chains)})"
        if chains
        else "its forward runs no list of modules one after the other"
    )
    raise InputError(
        f"a decoder-only model of the transformers library with one list of decoder layers is required, but {kind} "
        f"has none: {why}; choose another model"
    )


def _has_index(layer: nn.Module) -> bool:
    return any(hasattr(module, name) for module in layer.modules() for name in INDICES)


class _Run(NamedTuple):
    """One call of a member of a list: the member, what came in, and what came out."""

    member: int
    given: Tensor | None
    result: Tensor | None


def _calls(model: PreTrainedModel, lists: Mapping[str, nn.ModuleList]) -> dict[str, list[_Run]]:
    """The calls of the members of each list during one pass, in order; calls inside of members are left out."""
    calls: dict[str, list[_Run]] = {}
    depth = 0

    def enter(*args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(path: str, member: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1
        if not depth:
            given, result = (next(tensors(part), None) for part in ((*args, *kwargs.values()), output))
            calls.setdefault(path, []).append(_Run(member, given, result))

    handles = []
    for path, members in lists.items():
        for place, member in enumerate(members):
            handles.append(member.register_forward_pre_hook(enter))
            handles.append(member.register_forward_hook(partial(leave, path, place), with_kwargs=True))
    tokens_RT = torch.tensor([plain_tokens(model)[:3]], device=model.device)
    try:
        with (
            torch.inference_mode(),
            door(f"a pass of {type(model).__name__} over three tokens", "choose a causal language model of text"),
        ):
            model(input_ids=tokens_RT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _is_chain(calls: Seq[_Run], members: int) -> bool:
    """Whether every member ran once, in order, on the very result of the one before."""
    if [call.member for call in calls] != list(range(members)):
        return False
    return all(
        before.result is not None and after.given is not None and _same(before.result, after.given)
        for before, after in pairwise(calls)
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a, b.to(a.device)))


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
        mix: whether rows at different positions may share a batch; some rotary embeddings depend on the largest one,
            and some models count positions by slots of the cache.
        one_pass: longest input of which one pass gives what passes token by token give; None if unlimited. Beyond it,
            such rotary embeddings turn all tokens of a pass by the frequencies of the last.
    """

    last: int | None
    windowed: bool
    mix: bool
    one_pass: int | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Reads the constraints from a model's configuration."""
        config = model.config.get_text_config()
        context = context_length(model)
        kinds = getattr(config, "layer_types", None) or []
        windows = any("sliding" in kind or "chunked" in kind for kind in kinds)
        return cls(
            last=None if context is None else context - 1,
            windowed=windows or getattr(config, "sliding_window", None) is not None,
            mix=not rope_kinds(config) & {"longrope", "su", "dynamic"},
            one_pass=unscaled_length(config),
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
        aten = torch.ops.aten
        self.seen |= func.overloadpacket in (aten.topk, aten.sort, aten.argsort, aten.argmax)
        return func(*args, **(kwargs or {}))
