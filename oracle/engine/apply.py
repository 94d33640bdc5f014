"""Runs an allocation inside a user's own transformers model: `generate` as it is, with some of the layers."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

from torch import nn
from transformers import PreTrainedModel

from oracle.config import Scope, Unit
from oracle.engine.schedule import Units, check_allocation
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.models.decoder import Decoder
from oracle.models.introspection import find_layers
from oracle.models.layer_call import Call, Part, merged
from oracle.models.sublayers import Shapes
from oracle.models.truncate import shortened, truncated
from oracle.types import Allocation

__all__ = ["apply"]

CACHES = ("cache", "past_key_values")
"""Names under which forward functions take their cache."""


@contextmanager
def apply(
    model: PreTrainedModel | LanguageModel,
    allocation: Allocation,
    *,
    scope: Scope = "decode",
    unit: Unit = "layer",
) -> Iterator[PreTrainedModel]:
    """Context in which a model runs an allocation only; its own `generate` then replays an outcome of a run.

    In scope `sequence` every token runs the allocation. In scope `decode` the pass that fills an empty cache runs every
    layer; later passes run the allocation on the cached states of its layers, and drop the others from the cache.
    The model and its configuration are restored on leaving; no weight is copied or changed.

    Examples:
        >>> with oracle.apply(model, (0, 1, 2, 5), scope="decode"):  # doctest: +SKIP
        ...     output = model.generate(**inputs, do_sample=False)

    Args:
        model: a causal language model of the transformers library.
        allocation: indices of the layers that run, in order; of 2L attention and MLP sublayers for unit `sublayer`.
        scope: `decode` or `sequence`.
        unit: `layer` or `sublayer`.

    Yields:
        The model.

    Raises:
        InputError: if the allocation does not fit the model or the scope; while active in scope `decode`, for a forward
            pass with `use_cache=False` or with a cache without a list of layers.
    """
    if scope == "decode-last":
        raise InputError("scope decode or sequence is required, not decode-last: generate runs a prompt in one pass")
    network = model.network if isinstance(model, LanguageModel) else model
    owner, name = find_layers(network)
    originals = getattr(owner, name)
    calls, shapes = _calls(network, tuple(allocation), unit, rising=scope != "sequence")
    if not any(call.part != Part.MLP for call in calls):
        raise InputError("an allocation with at least one layer that attends is required, but it has none; add one")
    cut = truncated(network, calls, shapes)
    kept = getattr(*find_layers(cut))
    settings = shortened(network.config.get_text_config(), [call.layer for call in calls])

    @contextmanager
    def swapped() -> Iterator[None]:
        config = network.config.get_text_config()
        before = {key: getattr(config, key) for key in settings}
        setattr(owner, name, kept)
        _assign(config, settings)
        try:
            yield
        finally:
            setattr(owner, name, originals)
            _assign(config, before)

    if scope == "sequence":
        with swapped():
            yield network
        return
    with ExitStack() as stack:
        steps = _Steps(swapped, [call.layer for call in calls if call.part != Part.MLP])
        before = network.register_forward_pre_hook(steps.enter, with_kwargs=True)
        after = network.register_forward_hook(steps.leave, always_call=True)
        stack.callback(before.remove)
        stack.callback(after.remove)
        yield network


class _Steps:
    """Swaps the layers for each pass over a cache that holds a prompt.

    Args:
        swapped: context with the allocation's layers in place.
        states: per cached layer of the allocation, its index in the full cache.
    """

    def __init__(self, swapped: Any, states: list[int]) -> None:
        self._swapped, self._states = swapped, states
        self._active = ExitStack()
        self._cut: WeakSet[Any] = WeakSet()

    def enter(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Before a forward pass."""
        if kwargs.get("use_cache") is False:
            raise InputError("scope 'decode' needs the cache: call generate without use_cache=False")
        cache = next((kwargs[key] for key in CACHES if kwargs.get(key) is not None), None)
        if cache is None or not cache.get_seq_length():
            return
        if not hasattr(cache, "layers"):
            raise InputError(f"a cache with a list of layers is required, not {type(cache).__name__}")
        if cache not in self._cut:
            cache.layers = [cache.layers[state] for state in self._states]
            self._cut.add(cache)
        self._active.enter_context(self._swapped())

    def leave(self, network: nn.Module, args: Any, output: Any) -> None:
        """After a forward pass, failed ones included."""
        self._active.close()


def _calls(
    network: PreTrainedModel, allocation: Allocation, unit: Unit, *, rising: bool
) -> tuple[list[Call], Shapes | None]:
    if unit == "layer":
        owner, name = find_layers(network)
        check_allocation(allocation, len(getattr(owner, name)), rising=rising)
        return [Call(layer) for layer in allocation], None
    decoder = Decoder(network)
    units = Units(decoder, unit)
    units.check(allocation, rising=rising)
    return merged(units.calls(allocation)), decoder.sublayers.shapes


def _assign(config: Any, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        setattr(config, key, value)
