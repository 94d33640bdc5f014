"""A model is loaded as it was saved, or refused with the names of what is not there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import LAYERS, VOCABULARY, tiny_llama, tiny_tokenizer
from transformers import AutoTokenizer, LlamaModel

from oracle.errors import ForeignError, InputError
from oracle.models import load_model, load_tokenizer

Weights = dict[str, torch.Tensor]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves the tiny Llama with its weights and its configuration changed."""

    def save(change: Callable[[Weights], Weights] = dict, settings: dict[str, Any] | None = None, **tiny: Any) -> Path:
        folder = tmp_path / "model"
        tiny_llama(**tiny).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        weights = change(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text()) | (settings or {})
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return save


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if not any(part in name for part in parts)}


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): weight for name, weight in weights.items()}


def taller(weights: Weights) -> Weights:
    return {**weights, "model.norm.weight": torch.ones(48)}


DAMAGE: dict[str, tuple[Callable[[Weights], Weights], dict[str, Any], list[str]]] = {
    "layers": (dict, {"num_hidden_layers": 7}, [r"lacks model\.layers\.5\.input_layernorm\.weight", "and 14 more"]),
    "more layers": (dict, {"num_hidden_layers": 3}, [r"holds model\.layers\.3\.input_layernorm", "no place for"]),
    "one layer": (without("layers.2."), {}, [r"lacks model\.layers\.2\.input_layernorm\.weight", "and 5 more"]),
    "no head": (without("lm_head"), {}, [r"lacks lm_head\.weight;"]),
    "head by another name": (renamed("lm_head", "output"), {}, [r"lacks lm_head\.weight; it holds output\.weight,"]),
    "no embedding": (without("embed_tokens"), {}, [r"lacks model\.embed_tokens\.weight;"]),
    "compiled": (prefixed("_orig_mod."), {}, ["begin with '_orig_mod.' of torch.compile: save the model inside"]),
    "parallel": (prefixed("module."), {}, ["begin with 'module.' of torch.nn.DataParallel"]),
    "wrapped": (prefixed("student."), {}, ["begin with 'student.': save the model inside the wrapper"]),
    "another shape": (taller, {}, [r"other shapes: model\.norm\.weight \(48,\) instead of \(32,\)"]),
    "another width": (dict, {"intermediate_size": 96}, [r"mlp\.down_proj\.weight \(32, 64\) instead of \(32, 96\)"]),
    "an adapter's": (lambda weights: {**weights, "lora_A.weight": torch.ones(2)}, {}, [r"holds lora_A\.weight, which"]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_checkpoint_that_is_not_all_there_is_refused_with_the_names(case: str, saved: Callable[..., Path]) -> None:
    change, settings, words = DAMAGE[case]
    folder = saved(change, settings)
    for word in ["does not fit LlamaForCausalLM", *words]:
        with pytest.raises(InputError, match=word) as error:
            load_model(str(folder), device="cpu")
        assert "\n" not in str(error.value) and ";" in str(error.value)


def test_a_base_model_without_its_head_is_refused(tmp_path: Path) -> None:
    network = tiny_llama()
    LlamaModel(network.config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks lm_head\.weight; restore the complete checkpoint"):
        load_model(str(tmp_path), device="cpu")


def test_tied_weights_are_not_missing(saved: Callable[..., Path]) -> None:
    folder = saved(tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    network = load_model(str(folder), device="cpu").network
    assert network.lm_head.weight is network.model.embed_tokens.weight


def test_old_buffers_in_a_checkpoint_do_no_harm(saved: Callable[..., Path]) -> None:
    folder = saved(lambda weights: {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert load_model(str(folder), device="cpu").layers == LAYERS


def test_weights_that_are_not_finite_are_refused(saved: Callable[..., Path]) -> None:
    def damaged(weights: Weights) -> Weights:
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
        return weights

    with pytest.raises(InputError, match=r"LlamaForCausalLM gives logits that are not finite in torch\.float32"):
        load_model(str(saved(damaged)), device="cpu")


def test_tokens_without_an_embedding_are_refused_and_spare_rows_are_fine(saved: Callable[..., Path]) -> None:
    folder = saved(vocab_size=VOCABULARY + 6)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<t{i}>" for i in range(6)])
    tokenizer.save_pretrained(folder)
    assert load_model(str(folder), device="cpu").layers == LAYERS
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<s{i}>" for i in range(6)]})
    tokenizer.save_pretrained(folder)
    message = r"without an embedding: '<s0>' \(264\), .*'<s3>' \(267\) and 2 more, but LlamaForCausalLM has 264 rows"
    with pytest.raises(InputError, match=message):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors", "generation_config.json"])
def test_a_damaged_file_is_one_line_with_the_exception_kept(name: str, saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / name).write_bytes(b"{not json")
    with pytest.raises(ForeignError, match="cannot load the model") as error:
        load_model(str(folder), device="cpu")
    assert error.value.__cause__ is not None and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [ZeroDivisionError, NotImplementedError, AssertionError, SystemExit])
def test_whatever_a_model_raises_while_it_is_probed_is_one_line(
    kind: type[BaseException], saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise kind("out of\nmy depth")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", fail)
    message = rf"LlamaForCausalLM over three tokens failed \({kind.__name__}: out of my depth\); choose"
    with pytest.raises(ForeignError, match=message) as error:
        load_model(str(saved()), device="cpu")
    assert isinstance(error.value.__cause__, kind)


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fail(self: Any, name: str, timeout: float, **kind: Any) -> None:
        asked.append(name)
        assert timeout <= 5
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match="cannot load the model 'no-such/model': no such folder, not in the local"):
            load("no-such/model")
    assert asked == ["no-such/model"] * 2


def gguf_file(path: Path, *, layers: int, declared: int) -> Path:
    """A Llama in one GGUF file."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(declared)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}
    rng = np.random.default_rng(0)
    whole = {"token_embd": (VOCABULARY, 32), "output_norm": (32,), "output": (VOCABULARY, 32)}
    whole |= {f"blk.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    for name, shape in whole.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_that_lacks_layers_is_refused_with_the_names(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "part.gguf", layers=2, declared=4)
    with pytest.raises(InputError, match=r"lacks model\.layers\.2\.input_layernorm\.weight, .* and 14 more"):
        load_model(str(path), device="cpu")
    whole = gguf_file(tmp_path / "whole.gguf", layers=4, declared=4)
    with pytest.raises(InputError, match="its tokenizer failed"):  # there is none in this file, all else is there
        load_model(str(whole), device="cpu")


@pytest.mark.parametrize("whole", [True, False])
def test_adapters_are_never_left_out_without_a_word(tiny_folder: Path, tmp_path: Path, whole: bool) -> None:
    folder = tmp_path / "adapter"
    if whole:
        shutil.copytree(tiny_folder, folder)
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds an adapter .* give a folder with the merged model"):
        load_model(str(folder), device="cpu")
