"""The contract of a controller; see `oracle.controllers.Controller`."""

from typing import Any

import numpy as np

from oracle.controllers import Controller, TokenController, TrainingSet
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.run_context import RunContext
from oracle.types import RunPath

__all__ = ["check_controller"]

CLOSE = 1e-9


def check_controller(kind: type[Controller], run: RunPath, settings: dict[str, Any] | None = None) -> None:
    """Checks a controller on the sequences of a run: costs, independence of batch and order, scores, what it learns.

    Args:
        kind: the class.
        run: a run of at least four sequences whose search has ended; a search of a minute is enough.
        settings: its settings; None for the first of its sweep.

    Raises:
        AssertionError: names the rule that is broken.
    """
    context = RunContext.open(run)
    units, prompts = context.units, [context.examples[one].prompt for one in context.ids]
    sweep = kind.sweep(units)
    _require(bool(sweep) and all(isinstance(one, dict) for one in sweep), "a sweep lists settings")
    how = sweep[0] if settings is None else settings
    controller = _built(kind, context, how)
    outputs = controller.generate(prompts)
    _require(len(outputs) == len(prompts), "there is one output per prompt")
    for output in outputs:
        _require(output.family == kind.name, f"outputs name their controller, {kind.name}, not {output.family}")
        _require(0 <= output.fraction <= 1, f"a fraction lies between 0 and 1, not {output.fraction}")
        _require(abs(output.fraction * units - output.cost) < CLOSE, "the fraction is the cost over all units")
        is_token = isinstance(controller, TokenController)
        _require((output.allocation is None) == is_token, "sequence controllers report their allocation")
    again = controller.generate(prompts[::-1])[::-1]
    _require([one.tokens for one in again] == [one.tokens for one in outputs], "the order of prompts changes nothing")
    [alone] = controller.generate(prompts[1:2])
    _require((alone.tokens, alone.cost) == (outputs[1].tokens, outputs[1].cost), "nor does what shares a batch")
    _require(controller.generate([]) == [], "no prompts have no outputs")
    scores = controller.score(prompts, [output.tokens for output in outputs])
    vocabulary = context.engine.model.decoder.vocabulary
    other = [(*one.tokens[:-1], (one.tokens[-1] + 1) % vocabulary) for one in outputs]
    worse = controller.score(prompts, other)
    likelier = all(one.value >= two.value for one, two in zip(scores, worse, strict=True))
    _require(likelier or context.engine.processors is not None, "its own output is likelier than another")
    if kind.learns:
        _check_learning(kind, context, how, controller)


def _check_learning(kind: type[Controller], context: RunContext, how: dict[str, Any], controller: Controller) -> None:
    state = controller.state()
    _require(bool(state), "a controller that learns has a state")
    second = _built(kind, context, how).state()
    _require(
        state.keys() == second.keys() and all(np.array_equal(state[key], second[key]) for key in state),
        "training again gives the same state",
    )
    blank = kind(context.engine, **how)
    blank.restore(state)
    prompts = [context.examples[one].prompt for one in context.ids]
    same = [one.tokens for one in blank.generate(prompts)] == [one.tokens for one in controller.generate(prompts)]
    _require(same, "a restored state gives the same outputs")


def _built(kind: type[Controller], context: RunContext, how: dict[str, Any]) -> Controller:
    controller = kind(context.engine, **how)
    if kind.learns:
        examples = [context.examples[one] for one in context.ids[:-2]]
        controller.fit(TrainingSet(examples=examples, quality_table=QualityTable(context)))
    return controller


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise AssertionError(rule)
