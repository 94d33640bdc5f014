"""Hidden states of the full model: influence by its definition, dynamic programming against all masks."""

from itertools import combinations

import pytest
import torch
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.layer_importance import HiddenStates


@pytest.fixture
def engine(tiny_model) -> Engine:
    return Engine(tiny_model, SearchConfig(max_new_tokens=10))


@pytest.fixture
def states(engine) -> HiddenStates:
    prompt = engine.open("Hello there.")
    tokens = engine.alone(prompt, tuple(range(LAYERS)))
    return HiddenStates(engine, prompt, tokens)


@torch.inference_mode()
def test_influence_is_one_minus_the_cosine_between_states(engine, states) -> None:
    prompt = engine.open("Hello there.")
    tokens = engine.alone(prompt, tuple(range(LAYERS)))
    ids = torch.cat([prompt.tokens, torch.tensor(tokens[:-1])])[None]
    hidden = []
    hooks = [
        layer.register_forward_hook(lambda module, args, output: hidden.append((args[0], output)))
        for layer in engine.model.network.model.layers
    ]
    engine.model.network(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    for value, (before, after) in zip(states.influence(), hidden, strict=True):
        cosine = torch.nn.functional.cosine_similarity(before[0, prompt.length :], after[0, prompt.length :], dim=-1)
        assert value == pytest.approx(1 - cosine.mean().item(), abs=1e-5)
        assert value > 0.01


def test_masks_are_proposed_at_every_budget(states) -> None:
    masks = states.skips([1.0] * LAYERS, range(LAYERS))
    assert [len(masks[float(cost)]) for cost in range(LAYERS + 1)] == list(range(LAYERS + 1))
    assert masks[LAYERS] == tuple(range(LAYERS))
    assert states.executions == LAYERS * 10 + LAYERS * (LAYERS + 1) // 2 * 9


def test_one_skip_is_chosen_as_the_closest_of_all(states) -> None:
    """With one unit free at a time the programme is an exhaustive comparison of two states at the last depth."""
    target = states._full_UTD[-1]

    def similarity(mask: tuple[int, ...]) -> float:
        hidden = states._full_UTD[0][None]
        for unit in mask:
            hidden = states._run(unit, hidden)
        return torch.nn.functional.cosine_similarity(hidden[0], target, dim=-1).mean().item()

    found = states.skips([1.0] * LAYERS, range(LAYERS))
    for cost in range(1, LAYERS):
        every = sorted((similarity(mask) for mask in combinations(range(LAYERS), cost)), reverse=True)
        assert similarity(found[float(cost)]) >= every[len(every) // 3], "in the best third of all masks"


def test_fixed_units_always_run(states) -> None:
    masks = states.skips([1.0] * LAYERS, free=[1, 3])
    assert all({0, 2, 4} <= set(mask) for mask in masks.values())
    assert sorted(masks) == [3.0, 4.0, 5.0]


def test_uneven_costs_are_the_weights(tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=10, unit="sublayer"))
    prompt = engine.open("Hello there.")
    states = HiddenStates(engine, prompt, engine.alone(prompt, tuple(range(2 * LAYERS))))
    costs = [1.0, 3.5] * LAYERS
    masks = states.skips(costs, range(2 * LAYERS))
    assert len(masks) > 2 * LAYERS
    for cost, mask in masks.items():
        assert cost == pytest.approx(sum(costs[unit] for unit in mask))
