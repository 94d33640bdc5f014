"""Longest input that a model can process, from its kind of positions; and rotary embeddings made a function of them."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

__all__ = [
    "config_context",
    "context_length",
    "forget_lengths",
    "rope_kinds",
    "rope_settings",
    "unscaled_length",
    "windows_only",
]

DECLARED = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
"""Settings in which configurations store the longest input."""

TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding", "positions_embed", "pos_encoding")
"""Names of tables with one row per position: a position without a row does not exist."""

ROTARY_ROWS = ("embed_positions",)
"""Names of buffers of sines and cosines, computed once for the declared positions."""


def context_length(network: PreTrainedModel) -> int | None:
    """Longest input in tokens, or None if nothing limits it.

    A table of positions is a hard limit. Biases by distance (ALiBi), and rotary positions where every layer sees a
    window of recent tokens only, have none. Otherwise the limit is what the model was trained for: the declared length,
    or what rotary scaling extends it to.

    - `yarn`, `dynamic`: the original length times the factor, unless more is declared;
    - `linear`: the declared length times the factor (Chen et al. 2023, arXiv 2306.15595: the positions are divided);
    - `llama3`, `longrope`: the declared length, which includes the scaling; the original length times the factor if
      that length is all that is declared;
    - scaling per kind of layer: the declared length, which includes it.
    """
    rows = _table_rows(network)
    if rows is None:
        return config_context(network.config)
    declared = _declared(network.config.get_text_config())
    return rows if declared is None else min(rows, declared)


def config_context(config: Any) -> int | None:
    """The same as `context_length` from a configuration alone, which does not say whether there is a table."""
    config = config.get_text_config()
    declared = _declared(config)
    if declared is None or getattr(config, "alibi", False):
        return None
    if windows_only(config) and rope_kinds(config) == {"default"}:
        return None
    scaling = rope_settings(config)
    if len(scaling) != 1:
        return declared
    return _reach(scaling[0], declared)


def _declared(config: Any) -> int | None:
    return next((value for name in DECLARED if (value := getattr(config, name, None))), None)


def _reach(scaling: Mapping[str, Any], declared: int) -> int:
    """Length that rotary scaling extends a declared length to."""
    factor = scaling.get("factor") or 1.0
    original = scaling.get("original_max_position_embeddings") or declared
    match _kind(scaling):
        case "linear":
            return int(declared * factor)
        case "yarn" | "dynamic":
            return max(declared, int(original * factor))
        case "llama3" | "longrope" | "su":
            return declared if declared > original else int(original * factor)
    return declared


def rope_settings(config: Any) -> list[Mapping[str, Any]]:
    """Settings of the rotary embeddings: one for all layers, or one per kind of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    return nested or ([found] if found else [])


def rope_kinds(config: Any) -> set[str]:
    """Kinds of rotary scaling that a configuration uses."""
    return {_kind(settings) for settings in rope_settings(config)}


def unscaled_length(config: Any) -> int | None:
    """Length beyond which rotary frequencies depend on the length of the input; None if they never do."""
    lengths = []
    for settings in rope_settings(config):
        if _kind(settings) == "dynamic":
            lengths.append(config.max_position_embeddings)
        elif _kind(settings) in ("longrope", "su"):
            lengths.append(settings.get("original_max_position_embeddings") or config.max_position_embeddings)
    return min(lengths, default=None)


def _kind(settings: Mapping[str, Any]) -> str:
    return str(settings.get("rope_type", settings.get("type", "default")))


def windows_only(config: Any) -> bool:
    """Whether every layer attends to a window of recent tokens only, no longer than the declared length."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return False
    kinds = getattr(config, "layer_types", None)
    return window <= config.max_position_embeddings and (
        kinds is None or all(kind == "sliding_attention" for kind in kinds)
    )


def _table_rows(network: PreTrainedModel) -> int | None:
    """Number of positions with a row of their own; None without such a table."""
    tokens = network.get_input_embeddings()
    rows = []
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and module is not tokens and last in TABLES:
            # Some tables (OPT) begin with rows for padding.
            rows.append(module.num_embeddings - getattr(module, "offset", 0))
        rows += [len(buffer) for kind, buffer in module.named_buffers(recurse=False) if kind in ROTARY_ROWS]
    return min(rows, default=None)


def forget_lengths(network: PreTrainedModel) -> None:
    """Makes rotary embeddings with dynamic scaling depend on the positions of the current pass alone.

    The library keeps the frequencies of the longest input so far, so that an output depends on what ran before it.
    With them reset before every pass, a pass gives what it gives in a model that was just loaded.
    """
    for module in network.modules():
        kinds = getattr(module, "rope_type", None)
        known = _forget_length in module._forward_pre_hooks.values()
        if "dynamic" in str(kinds) and hasattr(module, "original_max_seq_len") and not known:
            module.register_forward_pre_hook(_forget_length)


def _forget_length(module: Any, args: Any) -> None:
    for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
        setattr(module, name, module.original_max_seq_len)
    for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("inv_freq")]:
        original = getattr(module, name.replace("inv_freq", "original_inv_freq"), None)
        if original is not None and "original" not in name:
            setattr(module, name, original.to(getattr(module, name).device))
