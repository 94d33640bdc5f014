"""Routers on a pretrained model: trained with the model frozen, then a gate of the engine."""

import numpy as np
import pytest
import torch
from zoo import tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.skiplayer import RetrofitConfig, RoutedGate, retrofit
from oracle.skiplayer.retrofitting import routed

pytestmark = pytest.mark.slow

TEXTS = ["The river runs past the old stone bridge and on to the sea. " * 5]


@pytest.fixture(scope="module")
def gate(tiny_model):
    before = {name: one.clone() for name, one in tiny_model.network.state_dict().items()}
    config = RetrofitConfig(density=0.6, steps=60, batch=2, context=24, learning_rate=0.02)
    trained = retrofit(tiny_model, TEXTS, config)
    after = tiny_model.network.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items()), "the backbone stays as it is"
    assert all(one.requires_grad for one in tiny_model.network.parameters())
    return trained


def test_routers_come_near_their_density(tiny_model, gate):
    engine = Engine(tiny_model, SearchConfig(scope="sequence", max_new_tokens=4, chat_template=False))
    [score] = engine.score_gated([engine.open("The river runs past")], gate, [engine.encode(" the old stone bridge")])
    assert 0 < score.ran_TL.mean() < 1
    assert score.ran_TL.mean() == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt, norm before"])
def test_the_engine_computes_what_training_computed(family, tiny_model):
    """Hidden behind hooks of the model's own forward, or token by token with keys and values propagated: the same."""
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_model.tokenizer)
    gate = retrofit(model, TEXTS, RetrofitConfig(steps=1, batch=1, context=8))
    torch.nn.init.normal_(gate.router.weight, generator=torch.Generator().manual_seed(3))
    gate.router.bias.data.zero_()
    engine = Engine(model, SearchConfig(scope="sequence", chat_template=False))
    prompt, more = engine.encode("The river"), engine.encode(" runs on")
    [score] = engine.score_gated([engine.open("The river")], gate, [more])
    with torch.no_grad(), routed(model, gate.router) as picks:
        logits = model.network(input_ids=torch.tensor([[*prompt, *more[:-1]]])).logits[0]
    ran_TL = torch.stack([pick.runs_RT[0] for pick in picks], dim=-1).numpy()
    assert np.array_equal(score.ran_TL, ran_TL)
    assert 0.1 < ran_TL.mean() < 0.9
    wanted = logits.double().log_softmax(-1)[len(prompt) - 1 :].gather(1, torch.tensor(more)[:, None])[:, 0]
    np.testing.assert_allclose(score.log_likelihoods_T, wanted.numpy(), atol=1e-4)
    [decoded] = engine.generate_gated([engine.open("The river")], gate)
    assert decoded.ran_TL.shape[1] == model.layers


def test_training_is_seeded(tiny_model, gate):
    again = retrofit(tiny_model, TEXTS, RetrofitConfig(**gate.about["config"]))
    assert torch.equal(again.router.weight, gate.router.weight)
    assert again.about == gate.about


def test_routers_are_saved_and_belong_to_their_model(tiny_model, gate, tmp_path):
    path = tmp_path / "routers.safetensors"
    gate.save(path)
    loaded = RoutedGate.load(path, tiny_model)
    assert torch.equal(loaded.router.weight, gate.router.weight)
    assert torch.equal(loaded.router.bias, gate.router.bias)
    assert loaded.about == gate.about
    other = LanguageModel(name="other", network=tiny("llama"), tokenizer=tiny_model.tokenizer)
    with pytest.raises(InputError, match="were trained for a model of fingerprint"):
        RoutedGate.load(path, other)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable tensor file"):
        RoutedGate.load(path, tiny_model)


def test_what_cannot_be_trained_is_refused(tiny_model):
    with pytest.raises(InputError, match="text of more than 64 tokens"):
        retrofit(tiny_model, ["short"])
    with pytest.raises(InputError, match="share from 0 to 1"):
        RetrofitConfig(density=2.0)
