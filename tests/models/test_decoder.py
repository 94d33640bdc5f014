"""The adapter leaves no trace: all layers in order are the untouched model, some layers the model without the rest."""

from itertools import combinations

import pytest
import torch
from tiny import LAYERS, tiny_llama
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from oracle.errors import InputError
from oracle.models import Decoder, truncated
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call


def run(decoder: Decoder, tokens: torch.Tensor, allocation: tuple[int, ...], pieces: int = 1) -> torch.Tensor:
    """Logits of a teacher-forced pass through some layers, the tokens given in several pieces."""
    cache = RowCache(decoder.layers, tokens.shape[1])
    logits = []
    for piece in tokens.chunk(pieces, dim=1):
        positions = torch.arange(cache.length, cache.length + piece.shape[1])[None]
        step = decoder.begin(piece, cache=cache, positions_RT=positions)
        hidden = step.hidden_RTD
        for layer in allocation:
            cache.step = layer
            hidden = decoder.run(Call(layer), hidden, step)
        cache.advance(piece.shape[1])
        logits.append(decoder.finish(hidden))
    return torch.cat(logits, dim=1)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 250, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["llama", "gpt2"])
def network(request: pytest.FixtureRequest) -> torch.nn.Module:
    if request.param == "llama":
        return tiny_llama()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=258, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64, initializer_range=0.2)
    return GPT2LMHeadModel(config).eval()


@torch.inference_mode()
def test_all_layers_are_the_untouched_model_bit_for_bit(network, tokens) -> None:
    assert torch.equal(run(Decoder(network), tokens, tuple(range(LAYERS))), network(tokens).logits)


@torch.inference_mode()
def test_some_layers_are_the_model_without_the_others_bit_for_bit(network, tokens) -> None:
    decoder, full = Decoder(network), network(tokens).logits
    for count in range(LAYERS):
        for allocation in combinations(range(LAYERS), count):
            logits = run(decoder, tokens, allocation)
            assert torch.equal(logits, truncated(network, allocation)(tokens, use_cache=False).logits)
            assert not torch.allclose(logits, full, atol=1e-3), "a layer that does not matter tests nothing"


@torch.inference_mode()
def test_tokens_may_come_in_pieces(network, tokens) -> None:
    decoder = Decoder(network)
    whole = run(decoder, tokens, (0, 2, 4))
    torch.testing.assert_close(run(decoder, tokens, (0, 2, 4), pieces=11), whole, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_model_is_left_as_it_was(network, tokens) -> None:
    before, names = network(tokens).logits, list(network.state_dict())
    run(Decoder(network), tokens, (1, 3))
    assert torch.equal(network(tokens).logits, before)
    assert list(network.state_dict()) == names


def test_truncated_shares_every_weight(network) -> None:
    cut = truncated(network, (1, 4))
    theirs = {parameter.data_ptr() for parameter in network.parameters()}
    assert all(parameter.data_ptr() in theirs for parameter in cut.parameters())
    assert cut.config.num_hidden_layers == 2
    assert network.config.num_hidden_layers == LAYERS


HEADS = {"num_attention_heads": 2, "intermediate_size": 16}
TINY = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: BertLMHeadModel(BertConfig(**TINY, num_attention_heads=2, intermediate_size=16)),
            "see later ones",
        ),
        (lambda: MambaForCausalLM(MambaConfig(**TINY, state_size=4)), "MambaForCausalLM has layers of kind linear_att"),
        (
            lambda: Lfm2ForCausalLM(
                Lfm2Config(**TINY, **HEADS, num_key_value_heads=2, layer_types=["conv", "full_attention"])
            ),
            "Lfm2ForCausalLM has layers of kind conv",
        ),
        (lambda: RwkvForCausalLM(RwkvConfig(**TINY, attention_hidden_size=16)), "Rwkv"),
        (
            lambda: Gemma3nForCausalLM(
                Gemma3nTextConfig(
                    **TINY | HEADS | {"intermediate_size": [16, 16]},
                    num_key_value_heads=2,
                    head_dim=8,
                    num_kv_shared_layers=1,
                    vocab_size_per_layer_input=64,
                    hidden_size_per_layer_input=8,
                    laurel_rank=4,
                    layer_types=["full_attention"] * 2,
                    activation_sparsity_pattern=[0.0] * 2,
                )
            ),
            "layer 1 of Gemma3nForCausalLM has no keys and values of its own",
        ),
        (
            lambda: T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2)),
            "encoder-decoder",
        ),
    ],
    ids=["bidirectional", "state-space", "convolution", "recurrent", "shared keys and values", "encoder-decoder"],
)
def test_other_models_are_refused_by_name(build, reason) -> None:
    with pytest.raises(InputError, match=reason) as error:
        Decoder(build().eval())
    assert "\n" not in str(error.value)
