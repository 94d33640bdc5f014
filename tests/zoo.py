"""Tiny random models of the families that the engine supports."""

import torch
import transformers as hf
from tiny import LAYERS, VOCABULARY
from transformers import PreTrainedModel

COMMON = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 256, "pad_token_id": None}
WIDE = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": LAYERS, "max_position_embeddings": 128}
GATED = {**WIDE, "intermediate_size": 64, "num_key_value_heads": 2}
MIXED = {"sliding_window": 8, "head_dim": 8, "layer_types": (["sliding_attention", "full_attention"] * LAYERS)[:LAYERS]}
GPT = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}
NEO = {
    "hidden_size": 32,
    "num_heads": 4,
    "num_layers": LAYERS,
    "max_position_embeddings": 128,
    "window_size": 8,
    "attention_types": [[["global", "local"], 2], [["global"], 1]],
}
OPT = {**WIDE, "ffn_dim": 64, "word_embed_proj_dim": 32}

ZOO: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", GATED),
    "mistral": ("Mistral", {**GATED, "sliding_window": 8}),
    "qwen2": ("Qwen2", GATED),
    "qwen3": ("Qwen3", {**GATED, "head_dim": 8}),
    "gemma2": ("Gemma2", {**GATED, **MIXED, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {**GATED, **MIXED, "query_pre_attn_scalar": 8}),
    "gpt2": ("GPT2", GPT),
    "gpt-neox": ("GPTNeoX", {**WIDE, "intermediate_size": 64}),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}),
    "opt, norm before": ("OPT", {**OPT, "do_layer_norm_before": True}),
    "opt, norm after": ("OPT", {**OPT, "do_layer_norm_before": False}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_head": 4, "n_layer": LAYERS}),
    "falcon": ("Falcon", {**WIDE, "alibi": False, "new_decoder_architecture": False, "multi_query": True}),
    "falcon, alibi": ("Falcon", {**WIDE, "alibi": True, "new_decoder_architecture": False, "multi_query": False}),
    "phi": ("Phi", {**GATED, "num_key_value_heads": 4}),
    "phi3": ("Phi3", GATED),
    "olmo2": ("Olmo2", GATED),
    "stablelm": ("StableLm", GATED),
    "gpt-bigcode": ("GPTBigCode", {**GPT, "multi_query": True}),
    "mixtral": ("Mixtral", {**GATED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
"""Family -> prefix of its classes, settings of its configuration."""

SHARED_EXPERT = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 48, "num_experts": 4}
MORE = {
    "gpt-neo": ("GPTNeo", NEO),
    "qwen2-moe": ("Qwen2Moe", {**GATED, **SHARED_EXPERT, "num_experts_per_tok": 2}),
}
"""Families beyond those that every test of families tries."""

CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


def tiny(family: str, **changes: object) -> PreTrainedModel:
    """A random model of a family, with weights large enough that every layer matters."""
    prefix, settings = {**ZOO, **MORE}[family]
    torch.manual_seed(0)
    config = getattr(hf, f"{prefix}Config")(**{**COMMON, **settings, **changes}, initializer_range=0.2)
    model = getattr(hf, CLASSES.get(prefix, f"{prefix}ForCausalLM"))(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start at one and zero, where some mistakes do not show
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model
