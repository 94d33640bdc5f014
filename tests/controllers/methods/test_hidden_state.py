"""CLaSp and ShortGPT, against the formulas of their papers on the library's own model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from torch.nn.functional import cosine_similarity

from oracle.config import SearchConfig
from oracle.controllers.methods.hidden_state import Clasp, ClaspWindow
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.engine.layer_importance import HiddenStates
from oracle.models import LanguageModel


@torch.inference_mode()
def published(model: LanguageModel, tokens: torch.Tensor, most: int) -> tuple[int, ...]:
    """CLaSp's mask with `most` skips, by its recursion on the states of the last token.

    g[l, m] is f_l(g[l-1, m]) or g[l-1, m-1], whichever is closer to the full model's state at l.
    """
    inner = model.network.model
    states = model.network(tokens[None], output_hidden_states=True, use_cache=False).hidden_states
    # The last entry of the library's list is after the final norm; a hook gives the state before it.
    last: list[torch.Tensor] = []
    hook = inner.layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    model.network(tokens[None], use_cache=False)
    hook.remove()
    full = [*states[:-1], last[0] if isinstance(last[0], torch.Tensor) else last[0][0]]
    positions = inner.rotary_emb(full[0], torch.arange(len(tokens))[None])

    def run(layer: int, own_D: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([full[layer][:, :-1], own_D[None, None]], dim=1)
        output = inner.layers[layer](hidden, position_embeddings=positions)
        return (output if isinstance(output, torch.Tensor) else output[0])[0, -1]

    best = {0: (full[0][0, -1], ())}
    for layer in range(len(inner.layers)):
        target = full[layer + 1][0, -1]
        following = {}
        for skipped in range(min(layer + 1, most) + 1):
            options = []
            if skipped in best:
                state, mask = best[skipped]
                options.append((run(layer, state), (*mask, layer)))
            if skipped - 1 in best:
                options.append(best[skipped - 1])
            following[skipped] = max(options, key=lambda one: float(cosine_similarity(one[0], target, dim=0)))
        best = following
    return best[most][1]


@pytest.mark.parametrize("layers", range(LAYERS + 1))
def test_clasp_is_the_published_recursion(context: RunContext, layers: int) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    expected = [published(context.engine.model, prompt.state.tokens, LAYERS - layers) for prompt in prompts]
    assert make("clasp", context, {"layers": layers}).allocations(prompts) == expected
    assert {len(mask) for mask in expected} == {layers}


def test_the_window_is_another_method(context: RunContext) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    masks = {name: make(name, context, {"layers": 3}).allocations(prompts) for name in ("clasp", "clasp-window")}
    assert {len(mask) for mask in masks["clasp-window"]} == {3}
    assert make("clasp-window", context, {"layers": LAYERS}).allocations(prompts) == [tuple(range(LAYERS))] * 6


def test_what_a_decision_costs(context: RunContext) -> None:
    """In layer executions: sum of min(l, M) over layers; at L = 30, 2.8 passes of one token for 3 skips, 6.8 for 8."""
    found = {}
    for kind in (Clasp, ClaspWindow):
        controller = kind(context.engine, layers=3)
        controller.allocations([next(iter(context.examples.values())).prompt])
        assert controller.costs is not None
        found[kind] = controller.decision_flops(np.ones((1, LAYERS), dtype=np.bool_)) / controller.costs.units[0]
    assert found[Clasp] == pytest.approx(0 + 1 + 2 + 2 + 2, rel=1e-3)
    assert found[ClaspWindow] == pytest.approx(8 * (2 + 3 + 4 + 5 + 6), rel=1e-3)
    assert sum(min(layer, 3) for layer in range(30)) / 30 == 2.8
    assert sum(min(layer, 8) for layer in range(30)) / 30 == 6.8


@pytest.fixture
def uneven() -> LanguageModel:
    """The tiny model with a final norm that turns states, as trained ones do."""
    network = tiny_llama()
    with torch.no_grad():
        network.model.norm.weight.copy_(torch.linspace(-1, 3, network.config.hidden_size))
    return LanguageModel(name="uneven", network=network, tokenizer=tiny_tokenizer())


def test_influence_before_and_after_the_final_norm(uneven: LanguageModel) -> None:
    """1 - cos(x_l, x_l+1): by the paper on the states themselves, by the code on the library's list of states."""
    engine = Engine(uneven, SearchConfig(max_new_tokens=8))
    prompt = engine.open("Hello there.")
    tokens = engine.alone(prompt, tuple(range(LAYERS)))
    ids = torch.cat([prompt.tokens, torch.tensor(tokens[:-1])])[None]
    kept: list[torch.Tensor] = []
    hook = uneven.network.model.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    with torch.inference_mode():
        listed = list(uneven.network(ids, output_hidden_states=True, use_cache=False).hidden_states)
    hook.remove()
    states = HiddenStates(engine, prompt, tokens)
    found = {}
    for normed, last in ((False, kept[0]), (True, listed[-1])):
        own = [state[0, prompt.length :] for state in (*listed[:-1], last)]
        expected = [1 - cosine_similarity(a, b, dim=-1).mean().item() for a, b in pairwise(own)]
        found[normed] = states.influence(normed=normed)
        np.testing.assert_allclose(found[normed], expected, atol=1e-5)
    assert found[False][:-1] == found[True][:-1]
    assert found[True][-1] > found[False][-1] + 0.05


@pytest.mark.parametrize("last", ["raw", "normed"])
def test_block_influence_keeps_the_layers_of_its_own_definition(
    context: RunContext, training_set: TrainingSet, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth = {False: (0.5, 0.4, 0.3, 0.2, 0.1), True: (0.5, 0.4, 0.3, 0.2, 0.9)}
    monkeypatch.setattr(HiddenStates, "influence", lambda self, *, normed=False: worth[normed])
    table = QualityTable(context)
    controller = make("influence", context, {"layers": 3, "last": last})
    controller.fit(replace(training_set, quality_table=table))
    assert controller.kept == {"raw": (0, 1, 2), "normed": (0, 1, 4)}[last]
