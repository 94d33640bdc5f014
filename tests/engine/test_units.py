"""Layer paths and sublayers: outcomes are those of the library's own model with just those layers."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_tokenizer
from zoo import ZOO, tiny

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.prompts import PromptState
from oracle.errors import InputError
from oracle.models import LanguageModel, truncated
from oracle.models.layer_call import Call, Part

PROMPTS = ("A longer prompt, wider than a window.", "xy")
PATHS = [(0, 1, 1, 2), (4, 3, 2, 1, 0), (0, 0, 0), (2,), (0, 1, 2, 3, 4, 0, 1), (1, 0, 1, 2), (), tuple(range(LAYERS))]
SUBLAYERS = [
    (),
    (0,),
    (1,),
    (3, 5, 7),
    (2, 4, 9),
    (0, 1, 4, 7, 8),
    (0, 1, 2, 3, 5, 6, 8, 9),
    tuple(range(2 * LAYERS)),
]
NORM_BEHIND = "opt, norm after"


@pytest.fixture(scope="module", params=ZOO)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel(name=request.param, network=tiny(request.param), tokenizer=tiny_tokenizer())


def requests(allocations: list[tuple[int, ...]], engine: Engine) -> list[tuple[PromptState, tuple[int, ...]]]:
    prompts = [engine.open(text) for text in PROMPTS]
    return [(prompt, allocation) for allocation in allocations for prompt in prompts]


def outputs(engine: Engine, allocations: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Tokens of every allocation for every prompt, from one batch without second chances, compared with plain ones."""
    engine.tie = -1.0
    asked = requests(allocations, engine)
    found = [generation.tokens for generation, _ in engine.generate(asked)]
    for request, tokens in zip(asked, found, strict=True):
        assert tokens == engine.alone(*request), request[1]
    return found


def test_layer_paths_repeat_and_reorder_layers_each_with_a_cache_of_its_own(model) -> None:
    found = outputs(Engine(model, SearchConfig(scope="sequence", max_new_tokens=4)), PATHS)
    assert len(set(found)) > len(found) / 5


def test_paths_score_as_the_model_with_those_layers(model) -> None:
    engine = Engine(model, SearchConfig(scope="sequence"))
    prompt, ids = engine.open(PROMPTS[0]), list(b"an answer")
    for path, value in zip(PATHS, engine.log_likelihoods(prompt, PATHS, ids), strict=True):
        tokens = torch.cat([prompt.tokens, torch.tensor(ids)])[None]
        with torch.inference_mode():
            logits = truncated(model.network, path)(tokens, use_cache=False).logits[0, prompt.length - 1 : -1]
        gold = logits.double().log_softmax(-1)[range(len(ids)), ids].mean().item()
        assert value == pytest.approx(gold, abs=1e-4), path


@pytest.mark.parametrize("path", [(0, 1, 1, 2), (1, 0)])
def test_paths_are_refused_where_the_prompt_is_at_full_depth(tiny_model, path) -> None:
    engine = Engine(tiny_model, SearchConfig(scope="decode"))
    prompt = engine.open("x")
    for use in (
        lambda: engine.generate([(prompt, path)]),
        lambda: engine.log_likelihoods(prompt, [path], [1, 2]),
        lambda: engine.alone(prompt, path),
    ):
        with pytest.raises(InputError, match=r"rising subset .* use scope 'sequence'"):
            use()


@pytest.mark.parametrize("allocation", [(0, LAYERS), (-1,)])
def test_layers_that_do_not_exist_are_refused(tiny_model, allocation) -> None:
    engine = Engine(tiny_model, SearchConfig())
    with pytest.raises(InputError, match=f"units 0 to {LAYERS - 1} is required"):
        engine.generate([(engine.open("x"), allocation)])


@pytest.mark.parametrize("scope", ["decode", "decode-last", "sequence"])
def test_sublayers_run_apart(model, scope) -> None:
    if model.name == NORM_BEHIND:
        with pytest.raises(InputError, match="norms follow the residual sum"):
            Engine(model, SearchConfig(unit="sublayer"))
        return
    engine = Engine(model, SearchConfig(scope=scope, unit="sublayer", max_new_tokens=4))
    found = outputs(engine, SUBLAYERS)
    assert len(set(found)) > len(found) / 5
    layers = Engine(model, SearchConfig(scope=scope, max_new_tokens=4))
    for whole, halves in (((), ()), ((1, 3), (2, 3, 6, 7)), (tuple(range(LAYERS)), tuple(range(2 * LAYERS)))):
        pairs = zip(
            layers.generate(requests([whole], layers)), engine.generate(requests([halves], engine)), strict=True
        )
        assert all(of_layers[0].tokens == of_halves[0].tokens for of_layers, of_halves in pairs)


def test_reproduction_by_sublayers_is_what_generation_says(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(unit="sublayer", max_new_tokens=6))
    prompt = engine.open(PROMPTS[0])
    runs = np.array(list(product([False, True], repeat=2 * LAYERS)))[::3]
    masks = [tuple(np.flatnonzero(row).tolist()) for row in runs]
    found = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
    wanted = max(set(found), key=found.count)
    answers = [answer for _, part in engine.reproduces(prompt, runs, wanted) for answer in part]
    assert answers == [tokens == wanted for tokens in found]
    assert 1 < sum(answers) < len(answers)


@torch.inference_mode()
def test_a_layer_without_its_mlp_is_its_attention_beside_the_residual(tiny_model) -> None:
    """Written out for Llama, so that the stand-ins are not their own witnesses."""
    network = tiny_model.network
    tokens = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(3))
    hidden = network.model.embed_tokens(tokens)
    positions = network.model.rotary_emb(hidden, torch.arange(9)[None])
    first, second = network.model.layers[0], network.model.layers[1]
    mask = torch.full((9, 9), float("-inf")).triu(1)[None, None]
    attended = first.self_attn(first.input_layernorm(hidden), position_embeddings=positions, attention_mask=mask)[0]
    hidden = hidden + attended
    hidden = hidden + second.mlp(second.post_attention_layernorm(hidden))
    expected = network.lm_head(network.model.norm(hidden))
    shapes = tiny_model.decoder.sublayers.shapes
    cut = truncated(network, [Call(0, Part.ATTENTION), Call(1, Part.MLP)], shapes)
    torch.testing.assert_close(cut(tokens, use_cache=False).logits, expected, rtol=1e-4, atol=1e-5)
