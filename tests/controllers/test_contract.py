"""What every controller owes: the contract, over all that there are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.controllers.base import Controller, TokenController
from oracle.controllers.registry import CONTROLLERS, chosen, make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.controllers.weights import load_learned, save_learned
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.store import Run


@pytest.fixture(scope="module")
def sequence_run(search: Callable[..., Run]) -> Run:
    return search(criterion="agreement", scope="sequence", max_new_tokens=4, evaluations=8)


def build(name: str, context: RunContext, training_set: TrainingSet) -> Controller:
    """A controller under the first setting of its sweep, taught if it learns."""
    controller = make(name, context, CONTROLLERS[name].sweep(LAYERS)[0])
    if controller.learns:
        controller.fit(training_set)
    return controller


@pytest.mark.parametrize("name", CONTROLLERS)
def test_outputs_report_what_ran(name: str, context: RunContext, training_set: TrainingSet) -> None:
    controller = build(name, context, training_set)
    prompts = [sequence.prompt for sequence in context.sequences]
    outputs = controller.generate(prompts)
    assert controller.costs is not None
    for output in outputs:
        assert output.family == name
        assert 0 <= output.fraction <= 1
        assert output.fraction == pytest.approx(output.cost / LAYERS)
        assert output.text == context.engine.model.text(output.tokens)
        assert output.seconds > 0
        assert output.flops >= controller.costs.overhead + output.cost * min(controller.costs.units) * (1 - 1e-9)
        assert (output.allocation is None) == isinstance(controller, TokenController)
    again = controller.generate(prompts[::-1])[::-1]
    assert [output.tokens for output in again] == [output.tokens for output in outputs], "an order changes nothing"
    [alone] = controller.generate(prompts[2:3])
    assert (alone.tokens, alone.fraction) == (outputs[2].tokens, outputs[2].fraction), "nor does a batch"
    assert controller.generate([]) == []


@pytest.mark.parametrize("name", CONTROLLERS)
def test_likelihoods_are_those_of_the_outputs(name: str, context: RunContext, training_set: TrainingSet) -> None:
    controller = build(name, context, training_set)
    prompts = controller.open([sequence.prompt for sequence in context.sequences])
    outputs = controller.generate(prompts)
    scores = controller.score(prompts, [output.tokens for output in outputs])
    worse = controller.score(prompts, [(*output.tokens[:-1], output.tokens[-1] ^ 1) for output in outputs])
    pairs = [(one.value, other.value) for one, other in zip(scores, worse, strict=True)]
    assert all(one > other for one, other in pairs), "the greedy token is likelier than another"
    if isinstance(controller, TokenController):
        spent = [(score.cost, score.flops) for score in scores]
        assert spent == [(output.cost, pytest.approx(output.flops)) for output in outputs]


@pytest.mark.parametrize("name", [name for name, kind in CONTROLLERS.items() if kind.learns])
def test_what_was_learned_can_be_stored_and_is_refused_before(
    name: str, context: RunContext, training_set: TrainingSet, tmp_path: Path
) -> None:
    prompts = [context.examples[one].prompt for one in context.ids]
    blank = make(name, context, CONTROLLERS[name].sweep(LAYERS)[0])
    with pytest.raises(InputError, match="call fit first"):
        blank.generate(prompts)
    learned = build(name, context, training_set)
    path = tmp_path / "folder" / "x.safetensors"
    assert not load_learned(path, blank, "key")
    save_learned(path, learned, {"key": "key", "controller": name})
    assert not load_learned(path, blank, "another key")
    assert load_learned(path, blank, "key")
    assert [one.tokens for one in blank.generate(prompts)] == [one.tokens for one in learned.generate(prompts)]
    assert blank.state().keys() == learned.state().keys() != set()
    for key, value in learned.state().items():
        np.testing.assert_array_equal(blank.state()[key], value)
    path.write_bytes(path.read_bytes()[:50])
    assert not load_learned(path, blank, "key"), "a damaged file is no knowledge"


@pytest.mark.parametrize("name", [name for name, kind in CONTROLLERS.items() if kind.learns])
def test_learning_is_repeatable(name: str, context: RunContext, training_set: TrainingSet) -> None:
    first, second = (build(name, context, training_set).state() for _ in range(2))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_full_is_the_full_model(context: RunContext, training_set: TrainingSet) -> None:
    outputs = build("full", context, training_set).generate([sequence.prompt for sequence in context.sequences])
    assert [output.tokens for output in outputs] == [context.examples[name].tokens for name in context.ids]
    assert {output.fraction for output in outputs} == {1.0}


def test_gates_that_decide_about_layers_refuse_sublayers(context: RunContext) -> None:
    engine = Engine(context.engine.model, replace(context.engine.config, unit="sublayer"))
    with pytest.raises(InputError, match="requires a run with unit 'layer', but its unit is 'sublayer'"):
        make("d3", replace(context, engine=engine), {"alpha": 0.9})


@pytest.mark.parametrize("name", ["d3", "confidence", "gate-hidden", "unified"])
def test_in_scope_sequence_prompts_are_not_counted(
    name: str, sequence_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fraction is the mean over the generated tokens that were fed, whatever the prompt's tokens ran."""
    context = RunContext.open(sequence_run.folder)
    generate, gated = Engine.generate_gated, []

    def seen(engine: Engine, *arguments: Any) -> Any:
        gated.extend(generate(engine, *arguments))
        return gated[-len(arguments[0]) :]

    monkeypatch.setattr(Engine, "generate_gated", seen)
    controller = make(name, context, CONTROLLERS[name].sweep(LAYERS)[0])
    if controller.learns:
        controller.fit(TrainingSet(examples=[context.examples[one] for one in context.ids[:4]], quality_table=None))  # type: ignore[arg-type]
    outputs = controller.generate([sequence.prompt for sequence in context.sequences])
    if name == "unified":
        assert {output.fraction for output in outputs} == {len(outputs[0].allocation or ()) / LAYERS}
        assert not gated
        return
    for output, found, sequence in zip(outputs, gated, context.sequences, strict=True):
        prompt = context.examples[sequence.id].prompt.state.length
        fed = found.ran_TL[prompt:]
        assert len(fed) == len(output.tokens) - 1
        assert output.fraction == pytest.approx(fed.mean() if len(fed) else 1.0)


def test_names() -> None:
    assert chosen("all") == list(CONTROLLERS)
    assert chosen("unified, full") == ["full", "unified"]
    with pytest.raises(InputError, match="nearest: 'router'"):
        chosen("full,ruoter")
    with pytest.raises(InputError, match="requires 'all'"):
        chosen(" , ")


def test_one_sequence_cannot_be_compared(small_run: Run) -> None:
    with pytest.raises(InputError, match="at least 2 sequences"):
        RunContext.open(small_run.folder, limit=1)


def test_the_config_of_the_run_is_the_engines(context: RunContext, small_run: Run) -> None:
    assert context.engine.config == SearchConfig.from_dict(small_run.manifest["config"])
