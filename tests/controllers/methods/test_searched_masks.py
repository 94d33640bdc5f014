"""EvoPress, SWIFT, KnapSpec and Dr.LLM's routers, against formulas written out on the library's own model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import LAYERS
from torch.nn.functional import cosine_similarity
from transformers import DynamicCache

import oracle
from oracle.controllers.methods.layer_router import DrLlm, labels
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.draft.adaptive import WINDOW
from oracle.engine import Engine
from oracle.errors import InputError

FULL = tuple(range(LAYERS))


@torch.inference_mode()
def predictions(context: RunContext, name: str, mask: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities at the places that predict the output's tokens after the first, by the library (T V)."""
    example, model = context.examples[name], context.engine.model
    with oracle.apply(model, mask, scope="decode") as network:
        cache = DynamicCache()
        network(example.prompt.state.tokens[None], cache=cache)
        return network(torch.tensor([example.tokens[:-1]]), cache=cache).logits[0].double().log_softmax(-1)


def test_evopress_finds_the_mask_of_least_divergence(context: RunContext, training_set: TrainingSet) -> None:
    """At four of five layers evolution sees every mask: the best is known."""
    controller = make("evopress", context, {"layers": LAYERS - 1})
    controller.fit(training_set)

    def divergence(mask: tuple[int, ...]) -> float:
        values = []
        for name in training_set.ids:
            full_TV, mine_TV = (predictions(context, name, one) for one in (FULL, mask))
            values.append(float((full_TV.exp() * (full_TV - mine_TV)).sum(-1).mean()))
        return float(np.mean(values))

    masks = [tuple(layer for layer in FULL if layer != lost) for lost in FULL]
    assert controller.kept == min(masks, key=divergence)


def test_swift_keeps_the_set_that_agrees_most(context: RunContext, training_set: TrainingSet) -> None:
    """One of three inner layers is skipped: all sets are drawn, and the first that agrees most is kept."""
    controller = make("swift", context, {"skip_ratio": 0.45})
    controller.fit(training_set)

    def agreement(mask: tuple[int, ...]) -> float:
        same = total = 0
        for name in training_set.ids:  # fewer than 50 tokens in all
            tokens = torch.tensor(context.examples[name].tokens[1:])
            same += int((predictions(context, name, mask).argmax(-1) == tokens).sum())
            total += len(tokens)
        return same / total

    masks = [tuple(layer for layer in FULL if layer != lost) for lost in (1, 2, 3)]
    assert controller.kept in masks
    assert agreement(controller.kept) == max(map(agreement, masks)) > 0
    with pytest.raises(InputError, match="a skip ratio of 0 to 1 is required, but 2 was given"):
        make("swift", context, {"skip_ratio": 2})


@torch.inference_mode()
def published_knapspec(context: RunContext, tokens_T: torch.Tensor) -> tuple[int, ...]:
    """KnapSpec's knapsack with equal weights over whole layers, as released, at a draft length of at most 4."""
    network = context.engine.model.network
    inner, window = network.model, min(WINDOW, len(tokens_T) - 1)
    last: list[torch.Tensor] = []
    hook = inner.layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    full = [*network(tokens_T[None], output_hidden_states=True, use_cache=False).hidden_states[:-1]]
    hook.remove()
    full.append(last[0] if isinstance(last[0], torch.Tensor) else last[0][0])
    positions = inner.rotary_emb(full[0], torch.arange(len(tokens_T))[None])

    def run(layer: int, own_TD: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([full[layer][:, :-window], own_TD[None]], dim=1)
        output = inner.layers[layer](hidden, position_embeddings=positions)
        return (output if isinstance(output, torch.Tensor) else output[0])[0, -window:]

    best = {0: (full[0][0, -window:], ())}
    for layer in range(LAYERS):
        target, found = full[layer + 1][0, -window:], {}
        for skipped, (state, mask) in best.items():
            found.setdefault(skipped, []).append((run(layer, state), (*mask, layer)))
            if 0 < layer < LAYERS - 1:
                found.setdefault(skipped + 1, []).append((state, mask))
        best = {}
        for skipped, options in found.items():
            similar = [float(cosine_similarity(one[0], target, dim=-1).mean()) for one in options]
            if max(similar) >= 0.5:
                best[skipped] = options[int(np.argmax(similar))]
    teacher = network.lm_head(inner.norm(full[-1][0, -window:])).argmax(-1)
    choices = []
    for skipped, (state, mask) in sorted(best.items(), key=lambda one: -one[0]):
        if 0 < skipped <= LAYERS // 2:
            alpha = float((network.lm_head(inner.norm(state)).argmax(-1) == teacher).float().mean())
            for length in range(5):
                expected = sum(alpha**count for count in range(length + 1))
                choices.append((expected / (2 * len(mask) * length + 2 * LAYERS), mask))
    return max(choices, key=lambda one: one[0])[1] if choices else FULL


def test_knapspec_is_the_released_knapsack(context: RunContext) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    expected = [published_knapspec(context, prompt.state.tokens) for prompt in prompts]
    assert make("knapspec", context, {}).allocations(prompts) == expected
    assert any(mask != FULL for mask in expected)
    assert all({0, LAYERS - 1} <= set(mask) for mask in expected)


def test_knapspec_over_sublayers_keeps_the_ends(context: RunContext) -> None:
    engine = Engine(context.engine.model, replace(context.engine.config, unit="sublayer"))
    for mask in make("knapspec", replace(context, engine=engine), {}).allocations(
        [example.prompt for example in context.examples.values()]
    ):
        assert {0, 1, 2 * LAYERS - 2, 2 * LAYERS - 1} <= set(mask) and len(mask) <= 2 * LAYERS


def test_labels_are_the_cheapest_masks_that_qualify(training_set: TrainingSet) -> None:
    table = training_set.quality_table
    for name, runs in zip(training_set.ids, labels(training_set, LAYERS), strict=True):
        mask = tuple(np.flatnonzero(runs).tolist())
        [[quality, full]] = table.qualities([name], [mask, FULL])
        assert quality >= full
        cheaper = [(), *((layer,) for layer in FULL)][: 1 if len(mask) == 1 else None] if mask else []
        known = [one for one in cheaper if len(one) < len(mask) and (name, one) in table._evaluated]
        assert all(table.qualities([name], [one])[0, 0] < full for one in known)


def test_routers_read_the_windows_of_every_layer(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("drllm", context, {})
    assert isinstance(controller, DrLlm)
    controller.fit(training_set)
    weights, network = controller.state(), context.engine.model.network
    for name in context.ids:
        prompt, kept = context.examples[name].prompt, []
        with torch.inference_mode():
            states = network(prompt.state.tokens[None], output_hidden_states=True).hidden_states
        for layer in FULL:
            windows = [part.mean(0).numpy() for part in states[layer][0].tensor_split(8)]
            logits = np.zeros(2)
            for window_D in windows:
                normed_D = (window_D - window_D.mean()) / np.sqrt(window_D.var() + 1e-5)
                hidden = weights[f"{layer}.1.weight"] @ normed_D + weights[f"{layer}.1.bias"]
                active = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
                logits += (weights[f"{layer}.3.weight"] @ active + weights[f"{layer}.3.bias"]) / len(windows)
            kept += [layer] if logits[1] > logits[0] else []
        assert controller.allocations([prompt]) == [tuple(kept)]


def test_per_forward_routers_decide_by_the_token_alone(context: RunContext, training_set: TrainingSet) -> None:
    """With routers that always skip one layer, the output is that of the mask without it."""
    controller = make("drllm-forward", context, {})
    controller.fit(training_set)
    state = controller.state()
    for layer in FULL:
        state[f"{layer}.3.weight"] = np.zeros_like(state[f"{layer}.3.weight"])
        state[f"{layer}.3.bias"] = np.array([float(layer == 2), float(layer != 2)], dtype=np.float32)
    controller.restore(state)
    mask = tuple(layer for layer in FULL if layer != 2)
    prompts = [example.prompt for example in context.examples.values()]
    expected = [one.tokens for one, _ in context.engine.generate([(prompt.state, mask) for prompt in prompts])]
    outputs = controller.generate(prompts)
    assert [one.tokens for one in outputs] == expected
    assert {one.cost for one in outputs if len(one.tokens) > 1} == {float(LAYERS - 1)}


def test_prefill_routers_decide_from_the_prompts_mean_states(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("first", context, {"alpha": 8.0})
    controller.fit(training_set)
    weights, network = controller.state(), context.engine.model.network
    prompts = [example.prompt for example in context.examples.values()]
    expected = []
    for prompt in prompts:
        with torch.inference_mode():
            states = network(prompt.state.tokens[None], output_hidden_states=True).hidden_states
        kept = [0]
        for layer in range(1, LAYERS - 1):
            mean_D = states[layer][0].mean(0).double().numpy()
            input_D = (mean_D - mean_D.mean()) / np.sqrt(mean_D.var() + 1e-5) / np.sqrt(len(mean_D))
            skip, run = weights[f"nets.{layer - 1}.weight"] @ input_D + weights[f"nets.{layer - 1}.bias"]
            kept += [layer] if run >= skip else []
        expected.append((*kept, LAYERS - 1))
    assert controller.allocations(prompts) == expected


def test_a_dearer_layer_is_skipped_more_often(context: RunContext, training_set: TrainingSet) -> None:
    prompts = [example.prompt for example in context.examples.values()]
    counts = []
    for alpha in (0.0, 1000.0):
        controller = make("first", context, {"alpha": alpha})
        controller.fit(training_set)
        counts.append(sum(map(len, controller.allocations(prompts))))
    assert counts[0] > counts[1] == 2 * len(prompts)
    with pytest.raises(InputError, match="a finite weight alpha of at least 0 is required, but -1 was given"):
        make("first", context, {"alpha": -1})
