"""Checkpoints that are not all there, vocabularies, contexts, and code of others: refused by name, or read rightly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tiny import LAYERS, VOCABULARY, tiny_llama, tiny_tokenizer
from torch import Tensor, nn
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import ForeignError, InputError, Interrupted, door
from oracle.models import LanguageModel, load_model
from oracle.models.introspection import context_of, find_layers, index_names
from oracle.models.loading import check_vocabulary

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def changed(source: Path, out: Path, change: Change) -> str:
    """A copy of a checkpoint with other weights."""
    shutil.copytree(source, out)
    save_file(change(load_file(source / "model.safetensors")), out / "model.safetensors", {"format": "pt"})
    return str(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if ".4." not in k}, r"missing \(model\.layers\.4\..* and 4 more\)"),
        (lambda w: {k: v for k, v in w.items() if "lm_head" not in k}, r"1 missing \(lm_head\.weight\)"),
        (lambda w: {k: v for k, v in w.items() if "norm" not in k}, "missing"),
        (lambda w: {f"_orig_mod.{k}": v for k, v in w.items()}, r"begin with '_orig_mod\.' because a wrapped module"),
        (lambda w: {f"module.{k}": v for k, v in w.items()}, r"begin with 'module\.'"),
        (lambda w: w | {"model.layers.9.mlp.up_proj.weight": torch.zeros(64, 32)}, r"1 unexpected \(model\.layers\.9"),
        (lambda w: w | {"lm_head.weight": torch.zeros(5, 32)}, r"1 of other shapes \(lm_head\.weight \(5, 32\)"),
        (lambda w: w | {"model.norm.weight": torch.zeros(31)}, r"of other shapes \(model\.norm\.weight"),
    ],
    ids=["layers", "head", "norms", "compiled", "data parallel", "one layer more", "small head", "small norm"],
)
def test_a_checkpoint_that_is_not_all_there_is_refused(
    change: Change, message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_model(changed(tiny_folder, tmp_path / "broken", change), device="cpu")
    assert "\n" not in str(refused.value) and "broken" in str(refused.value)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    tiny_tokenizer().save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert load_model(str(tmp_path / "tied"), device="cpu").layers == LAYERS


@pytest.mark.parametrize("rows", [VOCABULARY - 1, 100, VOCABULARY, VOCABULARY + 62])
def test_every_token_has_a_row_in_the_embedding(rows: int, tmp_path: Path) -> None:
    tiny_llama(vocab_size=rows, eos_token_id=10, pad_token_id=11).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    if rows >= VOCABULARY:  # padded embeddings are usual
        assert load_model(str(tmp_path / "model"), device="cpu").layers == LAYERS
        return
    with pytest.raises(InputError, match=rf"token ids up to 257 \('<pad>'\), but .* only {rows} rows"):
        load_model(str(tmp_path / "model"), device="cpu")


def test_an_added_token_beyond_the_embedding_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(InputError, match=r"up to 258 \('<extra>'\)"):
        check_vocabulary("tiny", tiny_llama(), tokenizer)


ROPE = {"rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("family", "changes", "context"),
    [
        ("llama", {}, 128),
        ("llama", {"rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 4.0}}, 512),
        ("llama", {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 8.0}}, 1024),
        ("llama", {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 2.0}}, 128),
        (
            "llama",
            {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
            256,
        ),
        (
            "llama",
            {
                "rope_parameters": {
                    **ROPE,
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8,
                }
            },
            128,
        ),
        ("mistral", {}, None),
        ("mistral", {"sliding_window": None}, 128),
        ("gemma2", {}, 128),
        ("gpt2", {}, 128),
        ("opt, norm before", {}, 128),
        ("bloom", {}, None),
        ("falcon, alibi", {}, None),
        ("falcon", {}, 128),
    ],
)
def test_the_context_is_what_the_positions_allow(family: str, changes: dict[str, object], context: int | None) -> None:
    assert context_of(tiny(family, **changes)) == context


def test_a_prompt_beyond_the_configured_length_runs_where_the_scaling_reaches() -> None:
    scaling = {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0}}
    network = tiny_llama(max_position_embeddings=32, **scaling)
    model = LanguageModel(name="tiny", network=network, tokenizer=tiny_tokenizer())
    engine = Engine(model, SearchConfig(max_new_tokens=4, chat_template=False))
    prompt = engine.open("x" * 100)
    [(outcome, _)] = engine.generate([(prompt, tuple(range(LAYERS)))])
    ids = prompt.tokens[None]
    plain = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4)
    assert tuple(plain[0, ids.shape[1] :].tolist()) == outcome.tokens
    with pytest.raises(InputError, match="128"):
        engine.open("x" * 140)


@pytest.mark.parametrize("family", ZOO)
def test_layers_are_those_that_the_forward_chains(family: str) -> None:
    network = tiny(family)
    owner, name = find_layers(network)
    layers = getattr(owner, name)
    assert len(layers) == LAYERS and network.config.get_text_config().num_hidden_layers == LAYERS
    assert all(index_names(layers)) and any(hasattr(m, n) for m in layers[0].modules() for n in index_names(layers))


def test_other_lists_of_the_same_length_are_not_the_layers() -> None:
    network = tiny_llama()
    decoy = nn.ModuleList(nn.Linear(32, 32) for _ in range(LAYERS))
    network.model._modules = {"decoy": decoy, **network.model._modules}  # before the layers, in the model itself
    owner, name = find_layers(network)
    assert (owner, name) == (network.model, "layers")
    fewer = tiny_llama()
    fewer.config.num_hidden_layers = LAYERS - 2  # the forward runs some of the list only
    with pytest.raises(InputError, match="has no list of decoder layers that its forward runs once each"):
        find_layers(fewer)


class Numbered(nn.Module):
    """An attention block that stores the index of its layer under a name of its own."""

    def __init__(self, inner: nn.Module, number: int) -> None:
        super().__init__()
        self.inner, self.depth_number = inner, number


def test_layers_numbered_under_another_name_are_found() -> None:
    layers = nn.ModuleList(nn.Sequential(Numbered(nn.Linear(2, 2), index)) for index in range(3))
    assert "depth_number" in index_names(layers)
    assert "depth_number" not in index_names(nn.ModuleList(nn.Sequential(Numbered(nn.Linear(2, 2), 1)) for _ in "abc"))


@pytest.mark.parametrize("error", [AttributeError("no cache"), ZeroDivisionError("division by zero"), KeyError("x")])
def test_a_door_names_step_reason_and_remedy(error: Exception) -> None:
    with pytest.raises(ForeignError) as found, door("rendering the prompt of 'x'", "use --no-chat-template"):
        raise error
    line = str(found.value)
    assert line.startswith("rendering the prompt of 'x' failed (") and line.endswith("; use --no-chat-template")
    assert type(error).__name__ in line and found.value.__cause__ is error


def test_a_door_lets_our_own_errors_and_interrupts_pass() -> None:
    for error in (InputError("ours"), Interrupted("run"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as found, door("a step", "a remedy"):
            raise error
        assert found.value is error


class Broken(hf.PreTrainedTokenizerFast):
    """A tokenizer whose code raises something of its own."""


@pytest.mark.parametrize("where", ["config", "tokenizer"])
def test_whatever_loading_raises_is_one_line(where: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    path = folder / ("config.json" if where == "config" else "tokenizer.json")
    values = json.loads(path.read_text())
    if where == "config":
        values["hidden_size"] = "wide"
    else:
        values["model"] = {"type": "BPE", "vocab": [], "merges": 3}
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="cannot load the model") as refused:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(refused.value)


def test_a_model_whose_forward_raises_anything_is_refused_by_name() -> None:
    network = tiny_llama()

    def forward(*args: object, **kwargs: object) -> SimpleNamespace:
        raise ZeroDivisionError("remote code")

    network.forward = forward  # type: ignore[method-assign]
    with pytest.raises(ForeignError, match=r"one forward pass of LlamaForCausalLM failed \(ZeroDivisionError"):
        find_layers(network)


class Outliers(nn.Module):
    """A matrix that, as 8-bit ones do, treats columns apart in which any row of the batch has an outlier."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, -2)
        apart = (flat.abs() > 1.5).any(0)
        coarse = (self.linear.weight * 8).round() / 8
        return nn.functional.linear(hidden * apart, self.linear.weight) + nn.functional.linear(hidden * ~apart, coarse)


class Capacity(nn.Module):
    """An MLP with room for three tokens of a batch; the others pass by."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, -2)
        chosen = flat.sum(-1).argsort(descending=True)[:3]
        result = torch.zeros_like(flat)
        result[chosen] = self.mlp(flat[chosen])
        return result.view_as(hidden)


@pytest.mark.parametrize("kind", [Outliers, Capacity])
def test_rows_that_influence_each_other_are_refused_by_name(kind: type[nn.Module]) -> None:
    network = tiny_llama()
    for layer in network.model.layers:
        if kind is Outliers:
            layer.mlp.down_proj = Outliers(layer.mlp.down_proj)
        else:
            layer.mlp = Capacity(layer.mlp)
    model = LanguageModel(name="x", network=network, tokenizer=tiny_tokenizer())
    with pytest.raises(
        InputError, match=r"influence each other in LlamaForCausalLM|tokens of LlamaForCausalLM see later"
    ):
        _ = model.decoder


@pytest.mark.parametrize("width", range(8, 72, 8))
def test_experts_are_accepted_at_every_width(width: int) -> None:
    network = tiny("qwen2-moe", hidden_size=width, num_attention_heads=2, num_key_value_heads=1)
    assert LanguageModel(name="moe", network=network, tokenizer=tiny_tokenizer()).layers == LAYERS
