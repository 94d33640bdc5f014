"""Tiny random models, offline, and small files."""

import json
import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["LAYERS", "VOCABULARY", "Mixture", "jsonl", "tiny_llama", "tiny_tokenizer"]

# Threads cost more than they give on models this small; results must not depend on them.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

LAYERS = 5
VOCABULARY = 258  # bytes, a stop token, padding


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes: any text is representable, nothing needs training."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "</s>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def tiny_llama(seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random Llama of five narrow layers, whose layers matter: deleting one changes the output."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": 256,
        "bos_token_id": None,
        "pad_token_id": 257,
        "initializer_range": 0.2,
        **changes,
    }
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


class Expert(nn.Module):
    """A small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 24, bias=False), nn.Linear(24, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(self.up(hidden).relu())


class Mixture(nn.Module):
    """A mixture whose experts are a list of modules, as code shipped with models has it."""

    def __init__(self, width: int, experts: int, active: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))
        self.active = active

    def forward(self, hidden_states: Tensor) -> Tensor:
        flat = hidden_states.flatten(0, 1)
        weights, chosen = self.router(flat).softmax(-1).topk(self.active, dim=-1)
        result = torch.zeros_like(flat)
        for place, expert in enumerate(self.experts):
            rows, slot = (chosen == place).nonzero(as_tuple=True)
            if len(rows):
                result = result.index_add(0, rows, expert(flat[rows]) * weights[rows, slot, None])
        return result.view_as(hidden_states)


def jsonl(path: Path, *rows: dict[str, object]) -> str:
    """Writes rows as a data set; returns its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
