"""Checkpoints: whether a loaded one is complete, tensors in safetensors files, and the training state of a network."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oracle.errors import InputError
from oracle.store.derived import writable
from oracle.store.files import write_whole
from oracle.store.index import difference
from oracle.utils.text import printable

__all__ = ["check_vocabulary", "check_weights", "load_training", "read_tensors", "save_training", "write_tensors"]

ABOUT = "about"
"""Key of the JSON metadata."""

MOMENTS = ("exp_avg", "exp_avg_sq")

NAMED = 4
"""Maximum number of weights or tokens named in a message."""

WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "torch.nn.DataParallel"}
"""Prefixes of the weights of wrapped models -> what wraps them."""


def check_weights(name: str, network: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose weights are not exactly the model's.

    Weights that the library ties to others, or that a model's class declares as dispensable, count neither as missing
    nor as unexpected.

    Args:
        name: name of the model for the message.
        network: the loaded model.
        report: what the library found while loading (`output_loading_info`).

    Raises:
        InputError: weights are missing, unexpected, or of another shape; the library has filled them at random or left
            them out. The message names them and, where it can be told, the cause.
    """
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    mismatched = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in report["mismatched_keys"]}
    faults = []
    if missing:
        faults.append(f"lacks {_named(missing)}")
    if unexpected:
        faults.append(f"holds {_named(unexpected)}, which the model has no place for")
    if mismatched:
        shapes = {f"{key} {theirs} instead of {ours}" for key, (theirs, ours) in mismatched.items()}
        faults.append(f"holds weights of other shapes: {_named(shapes)}")
    if report.get("error_msgs"):
        faults.append(f"has errors: {_named(report['error_msgs'])}")
    if not faults:
        return
    total = len(network.state_dict())
    raise InputError(
        f"the checkpoint of '{name}' does not fit {type(network).__name__} ({total} weights): it "
        f"{'; it '.join(faults)}; {_remedy(missing, unexpected)}"
    )


def _named(names: Collection[str]) -> str:
    """The first names in order, and the number of the others."""
    shown = ", ".join(printable(one) for one in sorted(names)[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _remedy(missing: Collection[str], unexpected: Collection[str]) -> str:
    """What probably went wrong when the checkpoint was saved, and what to do."""
    prefix = _prefix(missing, unexpected)
    if prefix is not None:
        wrapper = next((f" of {what}" for known, what in WRAPPERS.items() if prefix.startswith(known)), "")
        return (
            f"its names begin with '{printable(prefix)}'{wrapper}: save the model inside the wrapper, or rename the "
            "weights"
        )
    if _prefix(unexpected, missing) is not None:
        return "its names lack the prefix of the model: save the whole model, head included, with save_pretrained"
    return "restore the complete checkpoint, or the configuration that it was saved with"


def _prefix(wanted: Collection[str], found: Collection[str]) -> str | None:
    """The prefix that turns at least half of the wanted names into found ones, if there is one."""
    prefixes = Counter(
        other.removesuffix(one) for one in wanted for other in found if other != one and other.endswith(f".{one}")
    )
    [(prefix, count)] = prefixes.most_common(1) or [("", 0)]
    return prefix if 2 * count >= len(wanted) and prefix else None


def check_vocabulary(name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that gives ids without an embedding; spare rows of the embedding are fine.

    Raises:
        InputError: names the tokens, added ones included.
    """
    weight = getattr(network.get_input_embeddings(), "weight", None)
    if not isinstance(weight, Tensor):
        return  # refused when the layers are looked for
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= len(weight)}
    if beyond:
        tokens = sorted(beyond, key=beyond.__getitem__)
        shown = ", ".join(f"{printable(token)!r} ({beyond[token]})" for token in tokens[:NAMED])
        more = f" and {len(tokens) - NAMED} more" if len(tokens) > NAMED else ""
        raise InputError(
            f"the tokenizer of '{name}' has tokens without an embedding: {shown}{more}, but {type(network).__name__} "
            f"has {len(weight)} rows; use the model's own tokenizer, or extend the embedding with "
            "resize_token_embeddings and save the model"
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors and their metadata to one file, whole or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    whole = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    with writable(path):
        # Their own `save_file` would replace the scratch file, and so end the lock on it.
        write_whole(path, lambda scratch: scratch.write_bytes(save(whole, {ABOUT: json.dumps(dict(about))})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `write_tensors` wrote.

    Raises:
        InputError: if the file is missing, damaged, or not as the index of its run lists it.
    """
    try:
        if reason := difference(path):
            raise ValueError(reason)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[ABOUT])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable tensor file ({error}); delete it to compute it again") from error


def save_training(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, about: Mapping[str, Any]) -> None:
    """Writes weights and Adam's moments; `about` holds the number of steps taken as `step`.

    Raises:
        InputError: if the file cannot be written.
    """
    tensors = dict(network.state_dict())
    for name, weight in network.named_parameters():
        tensors |= {f"{moment}:{name}": optimizer.state[weight][moment] for moment in MOMENTS}
    write_tensors(path, tensors, about)


def load_training(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Restores what `save_training` wrote; returns its metadata.

    Args:
        path: the file.
        network: the network, of the same shape.
        optimizer: its Adam.
        expected: entries that the metadata must have.

    Raises:
        InputError: if the file is missing, damaged, of another network, or has other metadata.
    """
    tensors, about = read_tensors(path)
    try:
        for name, value in expected.items():
            if about[name] != value:
                raise ValueError(f"{name} is {about[name]!r}, not {value!r}")
        step = torch.tensor(float(about["step"]))
        moments = {
            weight: {moment: tensors[f"{moment}:{name}"].to(weight.device) for moment in MOMENTS}
            for name, weight in network.named_parameters()
        }
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the checkpoint '{path}' cannot be used ({error}); delete it to train again") from error
    for weight, found in moments.items():
        optimizer.state[weight] = {"step": step.clone(), **found}
    return about
