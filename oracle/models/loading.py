"""Loads a causal language model from the hub, a folder, a GGUF file, or the embedded default."""

import hashlib
import json
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import constants, try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils import logging as transformers_logging

from oracle.config import EMBEDDED
from oracle.errors import FOREIGN, ForeignError, InputError, door, reason_of
from oracle.metrics.rouge import words
from oracle.models.checkpoints import check_vocabulary, check_weights
from oracle.models.context import config_context, context_length
from oracle.models.decoder import Decoder
from oracle.models.embedded import embedded_folder
from oracle.models.generation import GenerationSettings
from oracle.utils.devices import AUTO
from oracle.utils.hub import quick_hub
from oracle.utils.machine import Machine, resolve_device, resolve_dtype
from oracle.utils.paths import nearest_path
from oracle.utils.text import nearest_hint

__all__ = ["LanguageModel", "load_model", "load_tokenizer"]

SAMPLE = 65_536
"""Number of elements per weight in the fingerprint, evenly spaced."""

PLACES = f"a folder, a GGUF file, a hub id within reach, or '{EMBEDDED}'"
"""Where models come from."""

KNOWN = {
    "trust_remote_code": "ships its own code; review it, then allow it with --trust-remote-code",
    "Unrecognized configuration class": "is not a causal language model, but a decoder-only model is required",
}
"""Part of a message of the library -> what is wrong with the model."""

REMEDIES = {
    "configuration": "restore its config.json, or update transformers if it does not know the model yet",
    "weights": "a model with all of its weights, as safetensors, is required",
    "generation_config": "correct or remove its generation_config.json",
    "tokenizer": "save the tokenizer beside the model with save_pretrained",
}
"""Part of a model that cannot be loaded -> what to do."""


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

    @cached_property
    def context(self) -> int | None:
        """Longest input in tokens, or None if nothing limits it; see `oracle.models.context.context_length`."""
        return context_length(self.network)

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
        note = (
            "; rows of a batch influence each other, so each batch has one row"
            if self.decoder.rounding.interact
            else ""
        )
        return f"{self.name}: {self.layers} layers, {machine.dtype} on {machine.place}{note}"

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
        InputError: if the model, device or dtype does not exist, the checkpoint or the vocabulary is incomplete, or the
            model is not decoder-only.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place) or "auto"  # the library's name for the checkpoint's dtype
    source, options = _locate(name)
    options["trust_remote_code"] = trust_remote_code
    with quick_hub(source, "model"):
        return _load(name, source, options, precision, place)


def _load(
    name: str, source: str, options: dict[str, object], precision: torch.dtype | str, place: torch.device
) -> LanguageModel:
    config = _door(name, "configuration", lambda: AutoConfig.from_pretrained(source, **options))
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"a decoder-only model is required, but '{name}' is an encoder-decoder ({config.model_type}); "
            "choose a causal language model"
        )
    transformers_logging.disable_progress_bar()
    network, report = _door(name, "weights", lambda: _weights(source, precision, options))
    check_weights(name, network, report)
    _door(name, "generation_config", lambda: _read_generation(source, options))
    tokenizer = _door(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options))
    check_vocabulary(name, network, tokenizer)
    with door(f"moving '{name}' to {place}", "choose a smaller model, another --dtype, or --device cpu"):
        network.eval().to(place)
    model = LanguageModel(name=name, network=network, tokenizer=tokenizer)
    assert model.layers > 0
    return model


def _weights(
    source: str, dtype: torch.dtype | str, options: dict[str, object]
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model, and the library's report of what its checkpoint lacks."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # `check_weights` names all of them at once
        **options,
    )
    network, report = loaded
    return network, report


def _read_generation(source: str, options: dict[str, object]) -> None:
    """Reads a model's `generation_config` if it has one: the library goes on with defaults if it cannot be read."""
    folder = Path(source)
    path = (
        folder / GENERATION_CONFIG_NAME if folder.is_dir() else try_to_load_from_cache(source, GENERATION_CONFIG_NAME)
    )
    if "gguf_file" not in options and isinstance(path, str | Path) and Path(path).is_file():
        GenerationConfig.from_pretrained(str(Path(path).parent))


Loaded = TypeVar("Loaded")


def _door(name: str, part: str, load: Callable[[], Loaded]) -> Loaded:
    """Loads a part of a model; any exception of the library or the model's own code becomes one line."""
    try:
        return load()
    except FOREIGN as error:
        known = next((why for text, why in KNOWN.items() if text in str(error)), None)
        if known:
            raise InputError(f"'{name}' {known}") from error
        raise ForeignError(_explain(name, part, error)) from error


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
    with quick_hub(source, "model"):
        config = _door(name, "configuration", lambda: AutoConfig.from_pretrained(source, **options))
        tokenizer = _door(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options))
    return tokenizer, config_context(config)


def _locate(name: str) -> tuple[str, dict[str, object]]:
    """Source and options for `from_pretrained`, by model name."""
    if name == EMBEDDED:
        return str(embedded_folder()), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"GGUF file not found: '{name}'{nearest_path(path)}; check the path")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir() and (path / "adapter_config.json").is_file():
        raise InputError(
            f"the folder '{name}' holds an adapter (adapter_config.json), which cannot be run apart from its model: "
            "give a folder with the merged model (peft: merge_and_unload, then save_pretrained)"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(f"the folder '{name}' contains no config.json; give the folder of a saved model")
    if path.is_file():
        raise InputError(f"'{name}' is a file; give the folder of a saved model, or a GGUF file")
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"no such folder '{name}'{nearest_path(path)}; give {PLACES}")
    return (str(path) if path.is_dir() else name), {}


def _explain(name: str, part: str, error: BaseException) -> str:
    """One-line message for a loading error."""
    if not Path(name).expanduser().exists() and isinstance(error, OSError):
        return (
            f"cannot load the model '{name}': no such folder, not in the local cache, and {constants.ENDPOINT} cannot "
            f"be reached or does not have it{nearest_hint(name, [EMBEDDED])}; give {PLACES} ({reason_of(error)})"
        )
    return f"cannot load the model '{name}': reading its {part} failed ({reason_of(error)}); {REMEDIES[part]}"
