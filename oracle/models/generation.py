"""What a model's `generation_config` asks of greedy decoding: settings that are honoured, and those that are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

from oracle.errors import InputError

__all__ = ["GenerationSettings"]

HONOURED: Mapping[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "sequence_bias": ([], {}),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "stop_strings": ([], ""),
}
"""Settings that change greedy decoding and depend on a row's own tokens alone, each with the values (besides None) that
change nothing."""

SAMPLING: Mapping[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "temperature": (1.0,),
    "top_k": (0, 50),
    "top_p": (1.0,),
    "min_p": (),
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
"""Settings of sampling, which `generate(do_sample=False)` does not read."""

NOT_USED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "num_beams": ((1,), "greedy decoding"),
    "num_beam_groups": ((1,), "greedy decoding"),
    "num_return_sequences": ((1,), "greedy decoding has one output"),
    "constraints": ((), "greedy decoding"),
    "force_words_ids": ((), "greedy decoding"),
    "penalty_alpha": ((0, 0.0), "greedy decoding"),
    "dola_layers": ((), "greedy decoding"),
    "guidance_scale": ((1, 1.0), "it needs a second, unconditional pass per token"),
    "watermarking_config": ((), "outputs are compared without a watermark"),
    "prompt_lookup_num_tokens": ((), "no assistant is used"),
    "assistant_early_exit": ((), "no assistant is used"),
    "use_mtp": ((False,), "no assistant is used"),
    "is_assistant": ((False,), "no assistant is used"),
    "token_healing": ((False,), "prompts are not changed"),
    "max_time": ((), "outputs would depend on the machine"),
    "cache_implementation": (("dynamic", "hybrid"), "the engine has a cache of its own"),
}
"""Settings that are left out although `generate` reads them: the values that change nothing, and the reason."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """The settings of a model's `generation_config`, by what becomes of them.

    Attributes:
        honoured: settings that change greedy decoding, as JSON values.
        not_used: settings that are left out: the value and the reason.
        sampling: settings of sampling.
        end_tokens: token ids that end an output: the `generation_config`'s, or the tokenizer's if that has none.
        remarks: what else differs from `generate(do_sample=False)`.
    """

    honoured: Mapping[str, Any]
    not_used: Mapping[str, tuple[Any, str]]
    sampling: Mapping[str, Any]
    end_tokens: frozenset[int]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Reads the settings of a model.

        Raises:
            InputError: if the end tokens are no token ids.
        """
        config = getattr(network, "generation_config", None) or GenerationConfig()
        honoured = _set(config, HONOURED)
        not_used = {name: (value, NOT_USED[name][1]) for name, value in _set(config, _neutral(NOT_USED)).items()}
        if "min_new_tokens" in honoured and "min_length" in honoured:
            not_used["min_length"] = (honoured.pop("min_length"), "min_new_tokens takes precedence, as in generate")
        if "penalty_alpha" in not_used and (config.top_k or 0) <= 1:
            del not_used["penalty_alpha"]  # contrastive search needs both
        ends, remarks = _end_tokens(config, tokenizer)
        return cls(
            honoured=honoured,
            not_used=not_used,
            sampling=_set(config, SAMPLING),
            end_tokens=ends,
            remarks=(*remarks, *_own_code(network)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, for a manifest."""
        return {
            "honoured": dict(self.honoured),
            "not_used": {name: {"value": value, "reason": reason} for name, (value, reason) in self.not_used.items()},
            "sampling_not_used": dict(self.sampling),
            "end_tokens": sorted(self.end_tokens),
            "remarks": list(self.remarks),
        }

    def lines(self, *, honour: bool = True) -> list[str]:
        """What a user should know, a line each; empty if the `generation_config` changes nothing.

        Args:
            honour: whether the settings are honoured rather than left out on request.
        """
        lines = []
        if self.honoured:
            what = ", ".join(f"{name} {_short(value)}" for name, value in self.honoured.items())
            how = "honoured" if honour else "left out (--no-generation-config)"
            lines.append(f"Full model: generation_config sets {what}; {how}")
        lines += [
            f"generation_config: {name}={_short(value)} is not used ({reason})"
            for name, (value, reason) in self.not_used.items()
        ]
        if self.sampling:
            what = ", ".join(f"{name}={_short(value)}" for name, value in self.sampling.items())
            lines.append(f"generation_config: {what}: for sampling only; decoding is greedy")
        return lines + list(self.remarks)


def _neutral(table: Mapping[str, tuple[tuple[Any, ...], str]]) -> dict[str, tuple[Any, ...]]:
    return {name: values for name, (values, _) in table.items()}


def _set(config: GenerationConfig, table: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The settings of a table that have a value which changes something."""
    values = {name: getattr(config, name, None) for name in table}
    return {
        name: _plain(value)
        for name, value in values.items()
        if value is not None and not any(value == neutral for neutral in table[name])
    }


def _plain(value: Any) -> Any:
    """A setting as a JSON value; `sequence_bias` with tuples as keys becomes a list of pairs."""
    if isinstance(value, dict) and all(isinstance(key, tuple) for key in value):
        return [[list(key), bias] for key, bias in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (bool, int, float, str, dict)):
        return value
    return value.to_dict() if hasattr(value, "to_dict") else str(value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _end_tokens(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[frozenset[int], list[str]]:
    """The token ids that end an output, and a remark where the tokenizer's is not among them."""
    named = config.eos_token_id
    ids = named if isinstance(named, (list, tuple)) else [named]
    ids = [one for one in ids if one is not None]
    if not all(type(one) is int for one in ids):
        raise InputError(
            f"eos_token_id of the model's generation_config must be a token id or a list of them, not {named!r}; "
            "correct its generation_config.json"
        )
    ends, own = frozenset(ids), tokenizer.eos_token_id
    if own is None or own in ends:
        return ends, []
    token = f"'{tokenizer.eos_token}' ({own})"
    if not ends:
        remark = f"generation_config has no eos_token_id: outputs end at the tokenizer's {token}"
        return frozenset({own}), [remark]
    names = ", ".join(map(str, sorted(ends)))
    return ends, [f"outputs end at generation_config's eos_token_id ({names}), not at the tokenizer's {token}"]


def _own_code(network: PreTrainedModel) -> list[str]:
    """Remarks on a class that generates in a way of its own."""
    kind, remarks = type(network), []
    if getattr(kind, "generate", None) is not GenerationMixin.generate:
        remarks.append(f"{kind.__name__} has a generate() of its own, which is not used: decoding is greedy")
    builder = "_get_logits_processor"
    if getattr(kind, builder, None) is not getattr(GenerationMixin, builder, None):
        remarks.append(f"{kind.__name__} has logits processors of its own, which are not used")
    return remarks
