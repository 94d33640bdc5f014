"""Early exit by confidence: when tokens leave, and what that costs."""

import numpy as np
import pytest
import torch
from tiny import LAYERS

from oracle.controllers.methods.confidence import AdaInfer, Exits, decayed_threshold, features
from oracle.controllers.prompts import Example, Prompt
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Fed


def test_exited_tokens_are_not_checked_again(context: RunContext) -> None:
    decoder, asked = context.engine.model.decoder, []

    def leaves(features_XY: torch.Tensor, place_X: torch.Tensor) -> torch.Tensor:
        asked.append(len(features_XY))
        return torch.tensor([True] + [False] * (len(features_XY) - 1))

    gate, fed = Exits(decoder, (2, 4), leaves), Fed(requests=(0, 1, 2), start=0, skipped_R=(0, 0, 0))
    hidden_RTD = torch.randn(3, 1, 32)
    stays = [gate.runs(layer, hidden_RTD, fed)[:, 0].tolist() for layer in range(LAYERS)]
    assert stays == [[True] * 3] * 2 + [[False, True, True]] * 2 + [[False, False, True]]
    assert asked == [3, 2], "tokens that have exited are not asked again"
    reading = Fed(requests=(0, 1, 2), start=-1, skipped_R=(0, 0, 0))
    assert all(bool(gate.runs(layer, hidden_RTD, reading).all()) for layer in range(LAYERS)), "prompts stay"


def test_features_of_a_distribution() -> None:
    gap, top, entropy = features(torch.tensor([[0.5, 0.25, 0.25]]).log())[0].tolist()
    assert (gap, top) == (pytest.approx(0.25), pytest.approx(0.5))
    assert entropy == pytest.approx(1.5 * np.log(2))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_confidence_at_its_ends(context: RunContext, threshold: float) -> None:
    """A gap of 0 is always reached, one above 1 never."""
    controller = make("confidence", context, {"measure": "gap", "threshold": threshold, "stride": 2})
    outputs = controller.generate([example.prompt for example in context.examples.values()])
    assert {output.cost for output in outputs} == {2.0 if threshold == 0 else float(LAYERS)}
    if threshold:
        assert [output.tokens for output in outputs] == [example.tokens for example in context.examples.values()]
    # Two checks on the way to the end; the exit at the first one costs its own head and no other.
    heads = 1 if threshold == 0 else 3
    assert controller.costs is not None
    ran = controller.costs.of(tuple(range(int(outputs[0].cost))), propagate=True)
    assert outputs[0].flops == pytest.approx(ran + (heads - 1) * controller.costs.overhead)


def test_the_logits_of_an_exit_are_those_of_its_check(context: RunContext) -> None:
    """An exited token passes the other layers unchanged: the final head sees the state that the check saw."""
    controller = make("confidence", context, {"threshold": 0.0, "stride": 2})
    prompt = context.examples["s1"].prompt
    [output] = controller.generate([prompt])
    ids = torch.cat([prompt.state.tokens, torch.tensor(output.tokens[:1])])[None]
    with torch.inference_mode():
        network = context.engine.model.network
        states = network(ids, output_hidden_states=True, use_cache=False).hidden_states
        logits_V = network.lm_head(network.model.norm(states[2][0, -1]))
    assert output.tokens[1] == int(logits_V.argmax())


def test_the_thresholds_of_calm_decay_as_published() -> None:
    # 9/10 * 0.8 + 1/10 * exp(-4 t / 32)
    found = decayed_threshold(0.8, 4.0, torch.tensor([0.0, 8.0, 32.0]), 32)
    assert found.tolist() == pytest.approx([0.82, 0.72 + 0.1 * 0.367879, 0.72 + 0.1 * 0.0183156], abs=1e-6)
    assert decayed_threshold(1.1, 0.0, torch.tensor([5.0]), 8).tolist() == [1.0], "clipped"


def test_a_decayed_threshold_is_that_of_the_tokens_place(context: RunContext) -> None:
    tokens = context.engine.config.max_new_tokens
    controller = make("confidence", context, {"measure": "top", "threshold": 0.5, "decay": 4.0})
    place_X = torch.arange(tokens - 1)
    just = 0.45 + 0.1 * np.exp(-4 * np.arange(1, tokens) / tokens)
    for shift, leaves in ((1e-3, True), (-1e-3, False)):
        features_XY = torch.tensor([[0.0, value + shift, 0.0] for value in just])
        assert controller.leaves(features_XY, place_X).tolist() == [leaves] * (tokens - 1)


def test_each_measure_looks_at_its_own_feature(context: RunContext) -> None:
    one_XY, place_X = torch.tensor([[0.2, 0.6, 1.5]]), torch.tensor([0])
    settings = {
        ("confidence", 0.3, "gap"): False,
        ("confidence", 0.2, "gap"): True,
        ("confidence", 0.6, "top"): True,
        ("confidence", 0.7, "top"): False,
        ("entropy", 1.6, None): True,
        ("entropy", 1.4, None): False,
    }
    for (name, threshold, measure), leaves in settings.items():
        given = {"threshold": threshold} | ({"measure": measure} if measure else {})
        assert make(name, context, given).leaves(one_XY, place_X).tolist() == [leaves], (name, given)


def test_the_svm_has_the_widest_margin(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the points (0, 0) and (1, 1): w = (1, 1), b = -1."""
    controller = make("adainfer", context, {"classifier": "svm", "stride": 2})
    examples = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([False, True])
    monkeypatch.setattr(AdaInfer, "_examples", lambda self, example: examples)
    example = Example(id="x", prompt=Prompt(text="", state=context.examples["s0"].prompt.state), tokens=(1, 2))
    controller.fit(TrainingSet(examples=[example], quality_table=QualityTable(context)))
    assert controller.state()["weights"].tolist() == pytest.approx([1.0, 1.0, -1.0], abs=1e-3)
    beyond_XY = torch.tensor([[0.5, 0.51, 0.0], [0.5, 0.49, 0.0]])
    assert controller.leaves(beyond_XY, torch.tensor([0, 0])).tolist() == [True, False]


def test_without_a_check_on_the_way_no_token_exits(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("adainfer", context, {"threshold": 0.5, "stride": LAYERS})
    controller.fit(training_set)
    outputs = controller.generate([example.prompt for example in training_set.examples])
    assert [output.tokens for output in outputs] == [example.tokens for example in training_set.examples]
