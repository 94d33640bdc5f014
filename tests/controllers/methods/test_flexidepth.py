"""FlexiDepth: the engine's outcome beside hooks on the library's own layers, the loss, what it costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LAYERS
from torch import Tensor

from oracle.controllers.methods.flexidepth import PLAN, FlexiDepth, RouterAndAdapter
from oracle.controllers.methods.gate_training import gated_loss, train
from oracle.controllers.prompts import Prompt
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.errors import InputError


def mixed(context: RunContext) -> FlexiDepth:
    """A controller with random weights that skips some tokens and runs others."""
    controller = FlexiDepth(context.engine, alpha=1.0)
    torch.manual_seed(0)
    network = controller._network = controller._untrained()
    with torch.no_grad():
        for router, adapter in zip(network.routers, network.adapters, strict=True):
            router.head.bias.zero_()
            router.head.weight.normal_(std=1.0)
            adapter.up.weight.normal_(std=0.2)
    return controller


@contextmanager
def hooked(network: RouterAndAdapter, layers: Any, first: int) -> Iterator[list[Tensor]]:
    """Layers of the library that do what the paper says from token `first` on; yields the weights they saw."""
    weights: list[Tensor] = []

    def weigh(layer: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            hidden_RTD = args[0] if args else kwargs["hidden_states"]
            weight_RT = network.weight(layer, hidden_RTD).clone()
            weight_RT[:, :first] = 1.0
            weights.append(weight_RT)

        return hook

    def scale(module: Any, args: Any, output: Tensor) -> Tensor:
        return output * weights[-1][..., None]

    def replace_skipped(layer: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            hidden_RTD = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            weight_RT1 = weights[-1][..., None]
            adapted = hidden_RTD + (1 - weight_RT1) * network.adapters[layer - LAYERS + LAYERS // 2](hidden_RTD)
            chosen = torch.where(weight_RT1 > 0.5, after, adapted)
            return (chosen, *output[1:]) if isinstance(output, tuple) else chosen

        return hook

    handles = []
    for layer in range(LAYERS - LAYERS // 2, LAYERS):
        handles += [
            layers[layer].register_forward_pre_hook(weigh(layer), with_kwargs=True),
            layers[layer].mlp.register_forward_hook(scale),
            layers[layer].register_forward_hook(replace_skipped(layer), with_kwargs=True),
        ]
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def test_outputs_are_those_of_hooked_layers(context: RunContext) -> None:
    controller = mixed(context)
    decoder, model = context.engine.model.decoder, context.engine.model.network
    prompts = [Prompt.of(context.engine, sequence.prompt) for sequence in context.sequences]
    outputs = controller.generate(prompts)
    skipped = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        fed = torch.tensor(output.tokens[:-1], dtype=torch.long)
        tokens = torch.cat([prompt.state.tokens, fed])[None]
        assert controller._network is not None
        with hooked(controller._network, decoder._layers, prompt.state.length) as weights:
            logits_TV = model(input_ids=tokens, use_cache=False).logits[0, prompt.state.length - 1 :]
        chosen = logits_TV.gather(1, torch.tensor(output.tokens)[:, None])[:, 0]
        assert torch.allclose(chosen, logits_TV.max(-1).values, atol=1e-4), "greedy, but for near-ties"
        ran = torch.stack([weight_RT[0, prompt.state.length :] > 0.5 for weight_RT in weights], dim=-1)
        first = LAYERS - LAYERS // 2
        if len(output.tokens) > 1:
            assert output.cost == pytest.approx(first + float(ran.float().sum(-1).mean()))
        skipped += int((~ran).sum())
        [score] = controller.score([prompt], [output.tokens])
        assert score.value == pytest.approx(float(chosen.sub(logits_TV.logsumexp(-1)).mean()), abs=1e-4)
    assert skipped, "some tokens skip a layer"


def test_the_loss_is_that_of_the_engine_and_its_price_the_square(
    context: RunContext, training_set: TrainingSet
) -> None:
    controller = mixed(context)
    network = controller._network
    assert network is not None
    with torch.no_grad():
        loss, executed, price = gated_loss(
            context.engine.model.decoder, training_set.examples, network.mix(training_set.examples, 1.0), network.price
        )
    prompts = [example.prompt for example in training_set.examples]
    scores = context.engine.score_gated(
        [prompt.state for prompt in prompts], controller.gate(prompts), [one.tokens for one in training_set.examples]
    )
    expected = np.concatenate([score.log_likelihoods_T[1:] for score in scores])
    assert loss.item() == pytest.approx(-expected.mean(), rel=1e-4)
    assert executed.item() ** 2 < price.item() < executed.item(), "a mean of squares of fractions"


def test_untrained_it_is_near_the_full_model_and_adapters_add_nothing(context: RunContext) -> None:
    controller = FlexiDepth(context.engine, alpha=1.0)
    network = controller._untrained()
    hidden_RTD = torch.randn(2, 3, context.engine.model.decoder.width)
    last = LAYERS - 1
    assert bool((network.weight(last, hidden_RTD) > 0.9).all())
    assert torch.equal(network.adapted(last, hidden_RTD, torch.zeros(2, 3)), hidden_RTD)
    assert [network.decides(layer) for layer in range(LAYERS)] == [
        layer >= LAYERS - LAYERS // 2 for layer in range(LAYERS)
    ]


@pytest.mark.slow
def test_a_price_has_layers_skipped_and_adapters_are_trained(context: RunContext, training_set: TrainingSet) -> None:
    executed = {}
    for alpha in (0.0, 1000.0):
        controller = FlexiDepth(context.engine, alpha=alpha)
        torch.manual_seed(0)
        network = controller._network = controller._untrained()
        plan = replace(PLAN, steps=40, batch=2, rate=0.05)
        train(network, context.engine.model.decoder, training_set, alpha=alpha, plan=plan)
        outputs = controller.generate([example.prompt for example in training_set.examples])
        executed[alpha] = np.mean([output.fraction for output in outputs])
        if alpha:
            assert any(bool(adapter.up.weight.any()) for adapter in network.adapters)
    assert executed[1000.0] == pytest.approx((LAYERS - LAYERS // 2) / LAYERS), "the first half always runs"
    assert executed[0.0] > executed[1000.0]


def test_flops_count_routers_and_the_adapters_of_skipped_layers(context: RunContext) -> None:
    controller = mixed(context)
    network = controller._network
    assert network is not None
    width, inner = context.engine.model.decoder.width, context.engine.model.network.config.intermediate_size
    narrow, slim = max(1, width // 16), max(1, inner // 16)
    ran_TL = np.ones((3, LAYERS), dtype=np.bool_)
    ran_TL[1, -1] = False
    router, adapter = 2 * width * narrow + width, 3 * width * slim
    assert controller.decision_flops(ran_TL) == 2 * (3 * (LAYERS // 2) * router + adapter)


@pytest.mark.parametrize("alpha", [-1.0, float("inf"), float("nan")])
def test_a_weight_has_to_be_a_price(context: RunContext, alpha: float) -> None:
    with pytest.raises(InputError, match="finite weight alpha"):
        FlexiDepth(context.engine, alpha=alpha)
