"""Loads a causal language model from the hub, a folder, a GGUF file, or the embedded default."""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from oracle.config import EMBEDDED
from oracle.errors import ForeignError, InputError, door
from oracle.metrics.rouge import words
from oracle.models.decoder import Decoder
from oracle.models.embedded import embedded_folder
from oracle.models.generation import GenerationSettings
from oracle.models.introspection import config_context, context_of
from oracle.utils.devices import AUTO
from oracle.utils.hub import quick_hub
from oracle.utils.machine import Machine, resolve_device, resolve_dtype

__all__ = ["LanguageModel", "check_vocabulary", "load_model", "load_tokenizer"]

WRAPPERS = ("_orig_mod.", "module.", "base_model.model.", "model._orig_mod.")
"""Prefixes that torch.compile, DataParallel and adapters put before the names of weights."""

SHOWN = 5
"""Number of weight names shown in an error."""

SAMPLE = 65_536
"""Number of elements per weight in the fingerprint, evenly spaced."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model with its tokenizer.

    Attributes:
        name: as given to `load_model`.
        network: the untouched model of the transformers library, in evaluation mode.
        tokenizer: its tokenizer.
    """

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def decoder(self) -> Decoder:
        """The adapter that runs single layers."""
        return Decoder(self.network)

    @property
    def layers(self) -> int:
        """L, the number of decoder layers."""
        return self.decoder.layers

    @property
    def context(self) -> int | None:
        """Longest input in tokens, or None if the model sets no limit; see `Positions`."""
        return context_of(self.network)

    @cached_property
    def stop(self) -> frozenset[int]:
        """Token ids that end an output: the `generation_config`'s, or the tokenizer's if that has none."""
        return self.generation.end_tokens

    @property
    def generation(self) -> GenerationSettings:
        """What the model's `generation_config` asks of greedy decoding."""
        return GenerationSettings.of(self.network, self.tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the configuration, the weights (an even sample of each) and the vocabulary."""
        digest = hashlib.sha256()
        config = self.network.config.to_dict()
        # These keys describe where a model came from, not what it computes.
        for key in ("_name_or_path", "architectures", "dtype", "transformers_version"):
            config.pop(key, None)
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, weight in sorted(self.network.state_dict().items()):
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, len(flat) // SAMPLE)].to("cpu", torch.float64)
            digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
            digest.update(sample.numpy().tobytes())
        digest.update(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        digest.update(str(self.tokenizer.chat_template).encode())
        return digest.hexdigest()[:16]

    def text(self, tokens: Seq[int]) -> str:
        """Decoded tokens without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @cached_property
    def words_per_token(self) -> int:
        """Largest number of words (runs of letters and digits) in one token of the vocabulary."""
        texts = self.tokenizer.batch_decode([[index] for index in range(len(self.tokenizer))])
        return max(len(words(text)) for text in texts)

    @property
    def machine(self) -> Machine:
        """Device and dtype of the model."""
        return Machine.of(self.network.device, self.network.dtype)

    def headline(self) -> str:
        """Model, dtype and device on one line."""
        machine = self.machine
        return f"{self.name}: {self.layers} layers, {machine.dtype} on {machine.place}"

    def describe(self) -> dict[str, object]:
        """Description of the model for a manifest."""
        parameters = sum(weight.numel() for weight in self.network.parameters())
        return {
            "id": self.name,
            "class": type(self.network).__name__,
            "fingerprint": self.fingerprint,
            "layers": self.layers,
            "parameters": parameters,
            "dtype": self.machine.dtype,
            "context": self.context,
        }


def load_model(
    name: str = EMBEDDED, *, dtype: str = AUTO, device: str = AUTO, trust_remote_code: bool = False
) -> LanguageModel:
    """Loads a decoder-only language model and its tokenizer; weights are never unpickled.

    Args:
        name: `smollm2-135m-instruct` (the embedded model), a hub id, a local folder, or a GGUF file.
        dtype: of the weights, such as `float32` or `bf16`; `auto` is the checkpoint's dtype on a GPU and float32 on
            the CPU.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU if available, else the CPU).
        trust_remote_code: whether code shipped with the model may run.

    Raises:
        InputError: if the model, device or dtype does not exist, or the model is not decoder-only.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place) or "auto"  # the library's name for the checkpoint's dtype
    source, options = _locate(name)
    options["trust_remote_code"] = trust_remote_code
    try:
        config = AutoConfig.from_pretrained(source, **options)
        if config.is_encoder_decoder:
            raise InputError(
                f"a decoder-only model is required, but '{name}' is an encoder-decoder ({config.model_type}); "
                "choose a causal language model"
            )
        transformers_logging.disable_progress_bar()
        load: Any = AutoModelForCausalLM.from_pretrained
        # Weights of other shapes are reported with the missing ones, by name, instead of the library's own error.
        how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        network, report = load(source, dtype=precision, use_safetensors=True, **how, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except InputError:
        raise
    except Exception as error:  # a door: configurations, weights, tokenizers and code of others
        raise _explained(name, error) from error
    _check_weights(name, report)
    check_vocabulary(name, network, tokenizer)
    with door(f"moving the model '{name}' to {place}", "choose another --device or a smaller --dtype"):
        network = network.eval().to(place)
    model = LanguageModel(name=name, network=network, tokenizer=tokenizer)
    with door(f"probing the model '{name}'", "choose another model, or load it without code of its own"):
        assert model.layers > 0
    return model


def _check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that lacks weights, has other ones, or has them in other shapes.

    Args:
        name: the model.
        report: the library's load report; it leaves out tied weights and those that the model's class declares
            optional.
    """
    missing = sorted(map(str, report["missing_keys"]))
    unexpected = sorted(map(str, report["unexpected_keys"]))
    mismatched = sorted(
        f"{key[0]} {tuple(key[1])} instead of {tuple(key[2])}" if isinstance(key, tuple) else str(key)
        for key in report["mismatched_keys"]
    )
    errors = [str(error) for error in report.get("error_msgs") or []]
    kinds = {"missing": missing, "of other shapes": mismatched, "unexpected": unexpected, "not converted": errors}
    found = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if not found:
        return
    wrapped = next((prefix for prefix in WRAPPERS if any(key.startswith(prefix) for key in unexpected)), None)
    remedy = (
        f"the names begin with '{wrapped}' because a wrapped module was saved: save its inner module with "
        "save_pretrained"
        if wrapped
        else "give a complete checkpoint of this configuration"
    )
    raise InputError(f"the weights of '{name}' do not fit its configuration: {'; '.join(found)}; {remedy}")


def _some(names: Seq[str]) -> str:
    """The first names, and the number of the others."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_vocabulary(name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks that every token id of a tokenizer has a row in the model's embedding.

    Raises:
        InputError: if one has none; names the token.
    """
    weight = network.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    with door(f"reading the vocabulary of '{name}'", "give a model with a complete tokenizer"):
        token, last = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if last >= len(weight):
        raise InputError(
            f"the tokenizer of '{name}' has token ids up to {last} ({token!r}), but the model's embedding has only "
            f"{len(weight)} rows; give the model's own tokenizer, or resize the embedding and train it"
        )


def load_tokenizer(
    name: str = EMBEDDED, *, trust_remote_code: bool = False
) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer of a model, and its longest input in tokens (None without a limit); loads no weights.

    Args:
        name, trust_remote_code: as for `load_model`.

    Raises:
        InputError: if the model or its tokenizer cannot be loaded.
    """
    source, options = _locate(name)
    options["trust_remote_code"] = trust_remote_code
    try:
        with quick_hub(source, "model"):
            config = AutoConfig.from_pretrained(source, **options)
            return AutoTokenizer.from_pretrained(source, **options), config_context(config)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(_explain(name, error)) from error


def _locate(name: str) -> tuple[str, dict[str, object]]:
    """Source and options for `from_pretrained`, by model name."""
    if name == EMBEDDED:
        return str(embedded_folder()), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"GGUF file not found: '{name}'; check the path")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(f"the folder '{name}' contains no config.json; give the folder of a saved model")
    return (str(path) if path.is_dir() else name), {}


def _explained(name: str, error: Exception) -> InputError:
    """A loading error in one line."""
    expected = isinstance(error, (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError))
    return InputError(_explain(name, error)) if expected else ForeignError(_explain(name, error))


def _explain(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return f"'{name}' ships its own code; review it, then allow it with --trust-remote-code"
    if "Unrecognized configuration class" in str(error):
        return f"a decoder-only model is required, but '{name}' is not a causal language model"
    if not Path(name).exists() and isinstance(error, OSError):
        return (
            f"cannot load the model '{name}' ({reason}); give a hub id that is reachable or in the local cache, "
            f"a folder, a GGUF file, or '{EMBEDDED}'"
        )
    return f"cannot load the model '{name}': {reason}; a model with safetensors weights and a tokenizer is required"
