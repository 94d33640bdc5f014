"""FLOPs of one generated token, from the shapes of the unmodified modules.

Two per weight of a matrix that the token multiplies; in attention, per token attended to, two per element of the key
and of the value of every query head. Biases, norms, activations, softmax and rotations are no matrix products and not
counted; the embedding is a look-up of 0 FLOPs.
"""

import re

from torch import nn

from oracle.costs.anatomy import Experts, attention_of, decoder_layers, kinds, multiplied, provenance
from oracle.costs.costs import Conditions, Costs
from oracle.engine.prompts import prompt_pass
from oracle.engine.schedule import Units
from oracle.errors import InputError
from oracle.models import LanguageModel

__all__ = ["count_flops"]

STATES_ALONE = re.compile(r"(k|v|kv|key|value)(_\w+)?")
"""Names of modules that compute keys or values and no queries."""

PER_WEIGHT = 2
"""FLOPs: a product and a sum."""


def count_flops(model: LanguageModel, conditions: Conditions) -> Costs:
    """FLOPs of each unit, and the overhead, per generated token; the batch has no effect.

    A layer with a sliding window attends to no more than that, for any context. Only active experts of a mixture count.

    Raises:
        InputError: if the context is too long, attention and MLP cannot be skipped separately, or the architecture is
            unknown.
    """
    conditions.check_fits(model.context)
    Units(model.decoder, conditions.unit)  # refuses what cannot be taken apart
    config = model.network.config.get_text_config()
    if getattr(config, "kv_lora_rank", None):
        raise InputError(
            f"{type(model.network).__name__} caches keys and values compressed, so that its FLOPs depend on when they "
            "are unpacked, which its shapes do not determine; choose another model"
        )
    experts = Experts.of(config)
    owner, layers = decoder_layers(model.decoder)
    apart = conditions.unit == "sublayer"
    units: list[int] = []
    states: list[int] = []
    one_token = prompt_pass(model.decoder, [0]).cache
    for layer, kind, (keys_1K1W, values_1K1W) in zip(layers, kinds(config, len(layers)), one_token, strict=True):
        seen = min(conditions.context, kind.window or conditions.context)
        widths = config.num_attention_heads * (keys_1K1W.shape[-1] + values_1K1W.shape[-1])
        projected = sum(multiplied(child, experts) for child in attention_of(layer).values())
        attention = PER_WEIGHT * (projected + seen * widths)
        mlp = PER_WEIGHT * (multiplied(layer, experts) - projected)
        units += [attention, mlp] if apart else [attention + mlp]
        own = PER_WEIGHT * _states_weights(layer, experts, config.hidden_size * widths)
        states += [own, 0] if apart else [own]
    around = multiplied(owner, experts) - sum(multiplied(layer, experts) for layer in layers)
    return Costs(
        units=tuple(map(float, units)),
        states=tuple(map(float, states)),
        overhead=float(PER_WEIGHT * (around + multiplied(model.decoder.head, experts))),
        unit_of_measure="FLOPs/token",
        **provenance(model, conditions),
    )


def _states_weights(layer: nn.Module, experts: Experts | None, others: int) -> int:
    """Weights of the projections to a layer's keys and values.

    `others` are those of the projections to queries and from the heads' outputs.
    """
    alone = sum(
        multiplied(module, experts)
        for name, module in layer.named_modules()
        if STATES_ALONE.fullmatch(name.split(".")[-1])
    )
    # If one matrix computes queries, keys and values, the last two are the rest of attention.
    rest = alone or sum(multiplied(child, experts) for child in attention_of(layer).values()) - others
    if rest <= 0:
        raise InputError(f"the key and value projections of {type(layer).__name__} are unknown; choose another model")
    return rest
