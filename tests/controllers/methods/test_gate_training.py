"""Gates on a frozen model: what is trained, on what, and that it can be interrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LAYERS

from oracle.controllers.methods.gate_training import Plan, gated_loss, straight_through, train
from oracle.controllers.methods.gates import GlavasFixed, GlavasHidden, GlavasNetwork, LearnedGate, gumbel_noise
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Fed, Gate, TableGate

pytestmark = pytest.mark.slow

FAST = Plan(steps=6, batch=2, keep_every=2, rate=0.1)


def network(shape: str = "linear", *, fixed: bool = False) -> GlavasNetwork:
    torch.manual_seed(0)
    return GlavasNetwork(32, LAYERS, shape, fixed=fixed)


def test_the_loss_is_that_of_the_engine_under_the_same_gate(context: RunContext, training_set: TrainingSet) -> None:
    """Teacher-forced with gates of 0 and 1: the engine's own scores under the policy `propagate`, prompt and all."""
    runs_TL = np.random.default_rng(0).random((12, LAYERS)) < 0.6

    def decide(layer: int, hidden_RTD: torch.Tensor) -> torch.Tensor:
        count = hidden_RTD.shape[1]
        return torch.from_numpy(runs_TL[:count, layer]).float().expand(len(hidden_RTD), count)

    loss, executed, price = gated_loss(context.engine.model.decoder, training_set.examples, straight_through(decide))
    gate = TableGate([runs_TL] * len(training_set.examples), policy="propagate")
    scores = context.engine.score_gated(
        [example.prompt.state for example in training_set.examples],
        gate,
        [example.tokens for example in training_set.examples],
    )
    expected = np.concatenate([score.log_likelihoods_T[1:] for score in scores])
    assert loss.item() == pytest.approx(-expected.mean(), rel=1e-5)
    # Over sequences: each counts the same, however long its output is.
    assert executed.item() == pytest.approx(np.mean([score.ran_TL.mean() for score in scores]))
    assert price.item() == executed.item()


def test_long_outputs_count_no_more_than_short_ones(context: RunContext, training_set: TrainingSet) -> None:
    long, short, *_ = training_set.examples
    examples = [replace(long, tokens=(*range(60, 65),)), replace(short, tokens=(60, 61))]

    def decide(layer: int, hidden_RTD: torch.Tensor) -> torch.Tensor:
        """The short output's only token skips; those of the long one run."""
        return torch.tensor([[1.0] * 4, [0.0, 1.0, 1.0, 1.0]])

    _, executed, _ = gated_loss(context.engine.model.decoder, examples, straight_through(decide))
    assert executed.item() == pytest.approx(0.5)


@pytest.mark.parametrize("shape", ["linear", "mlp"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_price_on_layers_has_them_skipped(
    context: RunContext, training_set: TrainingSet, shape: str, fixed: bool
) -> None:
    decoder, weights = context.engine.model.decoder, context.engine.model.network.state_dict()
    before = {name: value.clone() for name, value in weights.items()}
    wanted = [weight.requires_grad for weight in decoder.model.parameters()]
    executed = {}
    for alpha in (0.0, 1000.0):
        net = network(shape, fixed=fixed)
        train(net, decoder, training_set, alpha=alpha, plan=replace(FAST, steps=25))
        states = [example.prompt.state for example in training_set.examples]
        executed[alpha] = np.mean(
            [one.ran_TL.mean() for one in context.engine.generate_gated(states, LearnedGate(net))]
        )
    assert executed[1000.0] == pytest.approx(2 / LAYERS), "the first and the last layer always run"
    assert executed[0.0] > executed[1000.0]
    assert all(torch.equal(before[name], value) for name, value in weights.items()), "the model is frozen"
    assert [weight.requires_grad for weight in decoder.model.parameters()] == wanted
    assert all(weight.grad is None for weight in decoder.model.parameters())


def test_gradients_reach_the_gates_through_the_layers_above(context: RunContext, training_set: TrainingSet) -> None:
    weight_L = torch.ones(LAYERS, requires_grad=True)

    def decide(layer: int, hidden_RTD: torch.Tensor) -> torch.Tensor:
        return weight_L[layer].expand(hidden_RTD.shape[:2])

    loss, _, _ = gated_loss(context.engine.model.decoder, training_set.examples, straight_through(decide))
    loss.backward()
    assert weight_L.grad is not None
    step = torch.zeros(LAYERS)
    step[1] = 1e-2
    shifted = []
    for sign in (-1, 1):
        with torch.no_grad():
            moved_L = torch.ones(LAYERS) + sign * step
            value, _, _ = gated_loss(
                context.engine.model.decoder,
                training_set.examples,
                straight_through(lambda layer, h: moved_L[layer].expand(h.shape[:2])),  # noqa: B023
            )
            shifted.append(float(value))
    assert float(weight_L.grad[1]) == pytest.approx((shifted[1] - shifted[0]) / 2e-2, rel=0.05)


@pytest.mark.parametrize("stopped", [2, 5])
def test_interrupted_training_ends_with_the_same_weights(
    context: RunContext, training_set: TrainingSet, tmp_path: Path, stopped: int
) -> None:
    decoder, path = context.engine.model.decoder, tmp_path / "gates.training"
    whole = network()
    losses = train(whole, decoder, training_set, alpha=1.0, plan=FAST)
    kept = replace(training_set, checkpoint=path)

    class StopError(Exception):
        pass

    def forward(*arguments: object) -> None:
        if len(seen) == stopped * (LAYERS - 2):
            raise StopError
        seen.append(arguments)

    seen: list[object] = []
    net = network()
    handle = net.register_forward_pre_hook(lambda module, arguments: forward(*arguments))
    with pytest.raises(StopError):
        train(net, decoder, kept, alpha=1.0, plan=FAST)
    handle.remove()
    again = network()
    rest = train(again, decoder, kept, alpha=1.0, plan=FAST)
    assert rest == losses[stopped // 2 * 2 :]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_checkpoint_of_something_else_is_left_alone(
    context: RunContext, training_set: TrainingSet, tmp_path: Path
) -> None:
    decoder, path = context.engine.model.decoder, tmp_path / "gates.training"
    train(network("mlp"), decoder, replace(training_set, checkpoint=path), alpha=1.0, plan=FAST)
    assert path.is_file()
    net, fresh = network(), network()
    losses = train(net, decoder, replace(training_set, checkpoint=path), alpha=1.0, plan=FAST)
    assert losses == train(fresh, decoder, training_set, alpha=1.0, plan=FAST)


def test_a_fixed_input_decides_alike_for_all(context: RunContext, training_set: TrainingSet) -> None:
    states = [example.prompt.state for example in training_set.examples]
    for kind, alike in ((GlavasFixed, True), (GlavasHidden, False)):
        controller = kind(context.engine, alpha=5.0, decision="argmax")
        controller.fit(training_set)
        gate: Gate = controller.gate([example.prompt for example in training_set.examples])
        assert isinstance(gate, LearnedGate)
        ran_TL = np.concatenate([one.ran_TL for one in context.engine.generate_gated(states, gate)])
        if alike:
            assert (ran_TL == ran_TL[0]).all()
    hidden = network()
    assert not torch.equal(hidden(1, torch.randn(1, 1, 32)), hidden(1, torch.randn(1, 1, 32)))


def test_a_sampled_gate_runs_with_the_probability_of_its_logits(context: RunContext) -> None:
    """Gumbel-max: run with probability sigmoid(z_run - z_skip), per token, layer and prompt anew."""
    net = network(fixed=True)
    lead = 0.7
    with torch.no_grad():
        for layer in net.nets:
            layer[0].weight.zero_()
            layer[0].bias.copy_(torch.tensor([0.0, lead]))
    prompts = [f"Prompt {i}" for i in range(40)]
    gate = LearnedGate(net, [gumbel_noise(text, 50, LAYERS, 0) for text in prompts])
    hidden_RTD, fed = torch.zeros(40, 50, 32), Fed(requests=tuple(range(40)), start=0, skipped_R=(0,) * 40)
    runs_RTL = torch.stack([gate.runs(layer, hidden_RTD, fed) for layer in range(LAYERS)], -1)
    assert runs_RTL[..., [0, -1]].all(), "first and last always run"
    middle = runs_RTL[..., 1:-1].float()
    assert middle.mean().item() == pytest.approx(1 / (1 + np.exp(-lead)), abs=0.02)
    assert middle.var(dim=(0, 1)).min() > 0.1, "drawn per token, not once per layer"
    prompt = Fed(requests=tuple(range(40)), start=-50, skipped_R=(0,) * 40)
    assert all(bool(gate.runs(layer, hidden_RTD, prompt).all()) for layer in range(LAYERS)), "prompts run every layer"


def test_samples_belong_to_seed_and_prompt(context: RunContext, training_set: TrainingSet) -> None:
    learned = GlavasFixed(context.engine, alpha=3.0, decision="sample")
    learned.fit(training_set)
    prompts = [example.prompt for example in training_set.examples]
    noise = {}
    for seed in (0, 1):
        controller = GlavasFixed(context.engine, alpha=3.0, decision="sample", seed=seed)
        controller.restore(learned.state())
        noise[seed] = controller.gate(prompts)._noise
    assert not np.array_equal(noise[0][0], noise[0][1]) and not np.array_equal(noise[0][0], noise[1][0])
    np.testing.assert_array_equal(noise[0][1], learned.gate(prompts[::-1])._noise[-2])


def test_decisions_share_their_training() -> None:
    assert {"decision", "seed"} == set(GlavasHidden.at_inference)
    settings = GlavasHidden.sweep(LAYERS)
    assert {one["decision"] for one in settings} == {"sample", "argmax"}
    trained = {tuple(value for name, value in one.items() if name != "decision") for one in settings}
    assert len(trained) * 2 == len(settings)
