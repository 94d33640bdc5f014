"""Layers, experts and cache indices are found by what the model does with them, not by a number that happens to fit."""

from types import MethodType
from typing import Any, get_args

import pytest
import torch
import transformers as hf
from tiny import LAYERS, Mixture, tiny_llama, tiny_tokenizer
from torch import Tensor, nn
from transformers import LlamaModel
from zoo import GATED, tiny

from oracle.config import Scope, SearchConfig
from oracle.engine import Engine
from oracle.engine.prompts import prompt_pass
from oracle.errors import InputError
from oracle.models import Decoder, LanguageModel
from oracle.models.introspection import attention_children, find_layers, index_names

MASKS = [(), (1,), (0, 3), (1, 2, 4), tuple(range(LAYERS))]


def model(network: nn.Module) -> LanguageModel:
    return LanguageModel(name="model", network=network, tokenizer=tiny_tokenizer())


def compare(network: nn.Module) -> None:
    """Every output of the engine is that of plain generation on the cut model."""
    for scope in get_args(Scope):
        engine = Engine(model(network), SearchConfig(scope=scope, max_new_tokens=6))
        prompts = [prompt_pass(engine.model.decoder, list(text), scope) for text in (b"a prompt of some length", b"xy")]
        requests = [(prompt, mask) for prompt in prompts for mask in MASKS]
        for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
            assert generation.tokens == engine.alone(*request)


def mixture(experts: int, active: int = 2) -> nn.Module:
    network = tiny_llama()
    for layer in network.model.layers:
        layer.mlp = Mixture(32, experts, active)
    return network.eval()


def test_a_mixture_with_as_many_experts_as_layers() -> None:
    network = mixture(LAYERS)
    owner, name = find_layers(network)
    assert getattr(owner, name) is network.model.layers
    compare(network)


class TwoLists(LlamaModel):
    """A decoder that first runs a list of as many small modules on the embeddings, beside each other."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.aligners = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(config.num_hidden_layers))
        del self._modules["layers"]
        self.layers = nn.ModuleList(LlamaModel(config).layers)  # stands behind the other list

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **more: Any) -> Any:
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        summed = embeds + 0.1 * sum(aligner(embeds) for aligner in self.aligners)
        return super().forward(inputs_embeds=summed, **more)


def test_another_list_of_the_same_length_is_left_alone() -> None:
    network = tiny_llama()
    weights = network.model.state_dict()
    network.model = TwoLists(network.config).eval()
    network.model.load_state_dict(weights, strict=False)
    assert next(name for name, part in network.named_modules() if isinstance(part, nn.ModuleList)) == "model.aligners"
    owner, name = find_layers(network)
    assert getattr(owner, name) is network.model.layers
    compare(network)


def test_the_text_model_of_a_multimodal_wrapper_not_its_vision_tower() -> None:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {**GATED, "vocab_size": 258, "max_position_embeddings": 128, "pad_token_id": 0}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision), text_config=hf.LlamaConfig(**text), image_token_index=250
    )
    torch.manual_seed(0)
    network = hf.LlavaForConditionalGeneration(config).eval()
    owner, name = find_layers(network)
    assert getattr(owner, name) is network.model.language_model.layers
    compare(network)


def test_layers_in_a_dictionary_of_modules_with_a_longer_list_in_the_configuration() -> None:
    network = tiny("gpt2")
    network.config.num_hidden_layers = 99  # a number that says nothing
    owner, name = find_layers(network)
    assert getattr(owner, name) is network.transformer.h


def looped(network: nn.Module) -> nn.Module:
    """A Llama that runs its layers twice."""
    layers = network.model.layers

    def forward(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        for layer in layers[1:]:
            hidden = layer(hidden, *args, **kwargs)
        return type(self).forward(self, hidden, *args, **kwargs)

    layers[0].forward = MethodType(forward, layers[0])
    original = network.model.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        kwargs["inputs_embeds"] = original(*args, **kwargs).last_hidden_state
        kwargs.pop("input_ids", None)
        return original(*args, **kwargs)

    network.model.forward = again
    return network


def shuffled(network: nn.Module) -> nn.Module:
    """A Llama whose layers read the sum of all hidden states before them."""
    seen: list[Tensor] = []

    def add(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (sum(seen[-2:]), *args[1:])  # type: ignore[return-value]

    for layer in network.model.layers:
        layer.register_forward_pre_hook(add)
    return network


def shortened(network: nn.Module) -> nn.Module:
    """A Llama whose forward runs a part of its list only."""
    network.config.num_hidden_layers = LAYERS - 2
    return network


def older(network: nn.Module) -> nn.Module:
    """A Llama whose forward knows its cache by the name of earlier versions of the library."""
    forward = network.model.forward

    def named(
        input_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        **rest: Any,
    ) -> Any:
        rest.pop("cache", None)
        return forward(input_ids=input_ids, use_cache=use_cache, **rest)

    network.model.forward = named
    return network


REFUSED = {
    "a cache by its earlier name": (lambda: older(tiny_llama()), "the forward of LlamaModel takes no argument 'cache'"),
    "a part of the list": (lambda: shortened(tiny_llama()), "runs no list of modules one after the other"),
    "encoder-decoder": (lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)), "is an encoder-decoder"),
    "layers run twice": (lambda: looped(tiny_llama()), r"runs the members of 'model\.layers' more than once"),
    "states beside the stream": (lambda: shuffled(tiny_llama()), "LlamaForCausalLM"),
    "no list": (lambda: hf.ReformerModelWithLMHead(hf.ReformerConfig(**REFORMER)), "Reformer"),
}
BART = {"vocab_size": 64, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 16}
REFORMER = {
    "vocab_size": 64,
    "hidden_size": 16,
    "attn_layers": ["local"],
    "num_attention_heads": 2,
    "attention_head_size": 8,
    "axial_pos_embds": False,
    "is_decoder": True,
    "feed_forward_size": 16,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_without_one_list_of_layers_are_refused_by_name(case: str) -> None:
    build, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as error:
        Decoder(build().eval())
    assert "\n" not in str(error.value)


def renumbered(network: nn.Module, name: str) -> nn.Module:
    """A Llama whose attention keeps its place in the cache in another attribute, as code shipped with models may."""
    for layer in network.model.layers:
        attention = layer.self_attn
        setattr(attention, name, attention.layer_idx)
        del attention.layer_idx
        kind = type(attention)
        attention.__class__ = type("Attention", (kind,), {"layer_idx": property(lambda self: getattr(self, name))})
    return network


@pytest.mark.parametrize("name", ["place", "block_number", "idx"])
def test_layers_numbered_by_another_attribute_work(name: str) -> None:
    network = renumbered(tiny_llama(), name)
    compare(network)
    layer = network.model.layers[3]
    assert name in index_names(layer) and attention_children(layer) == ["self_attn"]


def test_layers_numbered_where_nothing_can_be_changed_are_refused_at_loading() -> None:
    network = tiny_llama()
    for place, layer in enumerate(network.model.layers):
        kind = type(layer.self_attn)
        fixed = type("Attention", (kind,), {"layer_idx": property(lambda self, place=place: place, lambda *args: None)})
        layer.self_attn.__class__ = fixed
    decoder = Decoder(network)
    assert decoder.layers == LAYERS
    for scope in ("decode", "sequence"):
        message = r"plain generation (by|cut)|LlamaForCausalLM cut to"
        with pytest.raises(InputError, match=message):
            Engine(model(network), SearchConfig(scope=scope))


def test_layers_that_compute_with_their_own_number_are_refused_at_loading() -> None:
    network = tiny_llama()
    for layer in network.model.layers:
        kind = type(layer.self_attn)
        by_depth = property(lambda self: 1 / (1 + self.layer_idx), lambda *args: None)
        layer.self_attn.__class__ = type("Attention", (kind,), {"scaling": by_depth})
        del layer.self_attn.__dict__["scaling"]
    for unit in ("layer", "sublayer"):
        with pytest.raises(InputError, match=rf"LlamaForCausalLM cut to the {unit}s \(.* gives other logits"):
            Engine(model(network), SearchConfig(unit=unit))


def test_a_scale_by_depth_that_is_fixed_when_the_model_is_built_works() -> None:
    compare(tiny("gpt2", scale_attn_by_inverse_layer_idx=True))


def test_one_layer_is_a_list_too() -> None:
    network = tiny_llama(num_hidden_layers=1)
    engine = Engine(model(network), SearchConfig(max_new_tokens=4))
    prompt = prompt_pass(engine.model.decoder, [5, 6, 7])
    for mask in [(), (0,)]:
        [(generation, _)] = engine.generate([(prompt, mask)])
        assert generation.tokens == engine.alone(prompt, mask)
