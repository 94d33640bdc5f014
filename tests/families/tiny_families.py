"""Tiny random models of any family of the library, from the settings that its configuration has."""

import copy
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

__all__ = ["FAMILIES", "LAYERS", "VOCABULARY", "build"]

FAMILIES: dict[str, str] = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Name of a family in its configurations -> its causal model."""

LAYERS, VOCABULARY, WINDOW = 4, 96, 8

LARGEST = 20_000_000
"""Most parameters of a tiny model: more means that the settings have not reached some part of it."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "emb_dim": 32,
    "dim_model": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "swa_head_dim": 8,
    "global_head_dim": 8,
    "attention_head_dim": 8,
    "kv_channels": 8,
    "dim_head": 8,
    "d_kv": 8,
    "d_head": 8,
    "d_inner": 64,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "decoder_ffn_dim": 64,
    "encoder_ffn_dim": 64,
    "n_inner": 64,
    "dff": 64,
    "dim_ff": 64,
    "d_ff": 64,
    "feed_forward_size": 64,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
    "expert_ffn_hidden_size": 16,
    "dense_intermediate_size": 64,
    "intermediate_size_mlp": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "top_k_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "zero_expert_num": 0,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "max_seq_len": 128,
    "max_target_positions": 128,
    "sliding_window": WINDOW,
    "attention_window_size": WINDOW,
    "attention_chunk_size": WINDOW,
    "window_size": WINDOW,
    "rotary_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "query_pre_attn_scalar": 8,
    "layer_types": None,
    "mlp_layer_types": None,
    "layers_block_type": None,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 4,
    "max_2d_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "tie_word_embeddings": False,
    "is_decoder": True,
}
"""Small values of the settings that many families have; a setting that a family lacks is left out."""

INDEXED = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

MORE: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * LAYERS, "laurel_rank": 4},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), ROPE)},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * (LAYERS // 2)},
    "qwen4_exp": INDEXED,
    "qwen4_exp_text": INDEXED,
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "mamba2": {"num_heads": 8},
    "dots3_note": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "xglm": {"attention_heads": 4},
    "reformer": {"attn_layers": ["local"] * LAYERS, "axial_pos_embds": False},
}
"""Settings of single families."""

FULL = {"layer_types": ["full_attention"] * LAYERS}
REGIMES: tuple[dict[str, Any], ...] = (
    {},
    {"num_key_value_heads": 4},
    FULL,
    {"hidden_size": 64, "head_dim": 16, "num_key_value_heads": 4},
    {**FULL, "num_key_value_heads": 4, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "head_dim": 4, "rotary_dim": 4},
)
"""Changes to try in turn where a family cannot be built from the small values alone."""


def build(family: str) -> PreTrainedModel:
    """A tiny random model of a family whose layers matter, and which can be run if there is a way to make it so.

    Raises:
        ValueError: the library cannot build it from these settings, or it is not tiny; with the first reason.
    """
    kind = getattr(transformers, FAMILIES[family])
    first: Exception | None = None
    built: PreTrainedModel | None = None
    for regime in REGIMES:
        try:
            config = _config(family, regime)
            _check_size(kind, config)
            torch.manual_seed(0)
            model = _matter(kind(config).eval())
            built = built or model
            with torch.inference_mode():
                model(input_ids=torch.tensor([[2, 3, 4]]), use_cache=False)
            return model
        except Exception as error:
            first = first or error
    if built is None:
        raise ValueError(f"{type(first).__name__}: {first}") from first
    return built  # whoever runs it finds out why it does not run


def _check_size(kind: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    with torch.device("meta"):
        size = sum(weight.numel() for weight in kind(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters even with small settings")


def _config(family: str, regime: dict[str, Any]) -> PreTrainedConfig:
    kind = getattr(transformers, FAMILIES[family]).config_class
    return kind(**_settings(kind, family, regime))


def _settings(kind: type[PreTrainedConfig], family: str, regime: dict[str, Any]) -> dict[str, Any]:
    """The small settings that a configuration has, and those of the configurations inside of it."""
    whole = kind()
    has = {**whole.to_dict(), **dict.fromkeys(kind.attribute_map)}
    wanted = {name: value for name, value in {**SMALL, **regime, **MORE.get(family, {})}.items() if name in has}
    named = {kind.attribute_map.get(name, name): value for name, value in wanted.items()}
    settings = {name: value for name, value in named.items() if not isinstance(getattr(kind, name, None), property)}
    for name in kind.sub_configs:
        inner = getattr(whole, name, None)
        if isinstance(inner, PreTrainedConfig) and name not in MORE.get(family, {}):
            settings[name] = type(inner)(**_settings(type(inner), family, regime))
    return settings


def _matter(model: PreTrainedModel) -> PreTrainedModel:
    """Weights that start at zero or one made random, where some mistakes do not show."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model
