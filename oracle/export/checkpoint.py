"""A Hugging Face folder of a model with some of its layers, which plain transformers loads and runs."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from oracle.errors import InputError, door
from oracle.models import LanguageModel
from oracle.models.introspection import find_layers
from oracle.models.truncate import shortened, truncated
from oracle.store.files import write_folder
from oracle.store.index import json_text
from oracle.types import Allocation

__all__ = ["cut_config", "write_checkpoint"]

INDEX_LISTS = ("mlp_only_layers", "moe_layers", "global_attn_layers", "full_attn_layers", "cross_attention_layers")
"""Settings that list the indices of the layers of one kind."""

FIRST_LAYERS = ("first_k_dense_replace", "max_window_layers")
"""Settings that count the first layers of one kind."""


def cut_config(config: Any, kept: Seq[int]) -> dict[str, Any]:
    """Settings of a text configuration that change when only some layers are kept.

    Args:
        config: the full model's text configuration.
        kept: indices of the layers, in order; repeats allowed.

    Returns:
        Names and values: the number of layers, every list with one entry per layer, lists of layer indices, and numbers
        of first layers of one kind. What else depends on a layer's index shows when the checkpoint is loaded back.
    """
    layers, found = config.num_hidden_layers, shortened(config, kept)
    for name, value in config.to_dict().items():
        if name in found:
            continue
        if name in INDEX_LISTS and isinstance(value, list | tuple):
            found[name] = [place for place, layer in enumerate(kept) if layer in value]
        elif name in FIRST_LAYERS and isinstance(value, int):
            found[name] = sum(layer < value for layer in kept)
        elif name == "attention_types" and isinstance(value, list):  # GPT-Neo: [[kinds, repeats], ...]
            kinds = [kind for kinds, repeats in value for kind in kinds * repeats]
            found[name] = [[[kinds[layer]], 1] for layer in kept]
        elif isinstance(value, list | tuple) and len(value) == layers and "layer" in name:
            found[name] = [value[layer] for layer in kept]
    return found


def write_checkpoint(
    out: Path, model: LanguageModel, kept: Allocation, card: str, about: Mapping[str, Any], *, trust_remote_code: bool
) -> None:
    """Writes a model with exactly the kept layers, its tokenizer and generation configuration, and loads it back.

    The folder appears whole or not at all. Weights keep the dtype that the model was loaded in.

    Args:
        out: the folder; must not exist.
        model: the full model.
        kept: indices of the layers, in order; repeats are written as copies.
        card: text of the README.
        about: what `layer_oracle.json` says.
        trust_remote_code: whether code shipped with the model may run while loading the result.

    Raises:
        InputError: if the folder cannot be written, or the loaded model computes something else, because the model's
            code or configuration depends on the indices of the layers.
    """
    cut = truncated(model.network, kept)
    _separate(cut)
    config = cut.config.get_text_config()
    for name, value in cut_config(model.network.config.get_text_config(), kept).items():
        setattr(config, name, value)

    def fill(folder: Path) -> None:
        with door("writing the weights and the tokenizer", f"free space at '{out}' or choose another --out"):
            cut.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
            for weights in folder.glob("*.safetensors"):
                weights.chmod((folder / "config.json").stat().st_mode)  # theirs would be readable by the user alone
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "layer_oracle.json").write_text(json_text(dict(about)), encoding="utf-8")
        _compare(cut, folder, trust_remote_code)

    write_folder(out, fill)


def _separate(cut: PreTrainedModel) -> None:
    """Gives repeated layers weights of their own, which a weight file requires."""
    owner, name = find_layers(cut)
    seen: set[int] = set()
    for layer in getattr(owner, name):
        for module in layer.modules():
            for key, weight in list(module._parameters.items()):
                if weight is None:
                    continue
                if id(weight) in seen:
                    module._parameters[key] = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
                seen.add(id(weight))


@torch.inference_mode()
def _compare(cut: PreTrainedModel, folder: Path, trust_remote_code: bool) -> None:
    """Loads the folder in plain transformers, and compares its logits bit for bit."""
    kind = type(cut).__name__
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        loaded, report = load(folder, dtype=cut.dtype, output_loading_info=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError) as error:
        raise InputError(f"a {kind} with some of its layers does not load again ({error}); use oracle.apply") from error
    wrong = sorted(str(name) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[key])
    if wrong:
        raise InputError(
            f"a {kind} with some of its layers does not load completely ({', '.join(wrong[:3])}); use oracle.apply"
        )
    loaded = loaded.eval().to(cut.device)
    tokens_RT = torch.arange(12, device=cut.device)[None] % cut.config.get_text_config().vocab_size
    ours = cut(input_ids=tokens_RT, use_cache=False).logits
    theirs = loaded(input_ids=tokens_RT, use_cache=False).logits
    if not torch.equal(ours, theirs):
        raise InputError(
            f"layers of {kind} compute something else under another index (largest difference of logits "
            f"{float((ours - theirs).abs().max()):.2g}), so a checkpoint cannot hold them; use oracle.apply"
        )
