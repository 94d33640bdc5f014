"""Code books, routers and the best static mask."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import LAYERS

from oracle.allocations import unified
from oracle.controllers.candidates import candidate_masks, code_book
from oracle.controllers.methods.sequence_router import class_weights, focal_loss
from oracle.controllers.methods.static import pool
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import make
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.metrics import agreement
from oracle.types import Outcome


def test_a_code_book_covers_greedily() -> None:
    quality_NM = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.6], [0.0, 0.9, 0.6]])
    free = np.zeros(3)
    assert code_book(quality_NM, free, size=1, price=1.0) == [1]
    assert code_book(quality_NM, free, size=3, price=1.0) == [1, 0], "the third mask improves no sequence"
    dear = np.array([1.0, 1.0, 0.0])
    assert code_book(quality_NM, dear, size=1, price=1.0) == [2]


def test_nominations_hold_what_is_known_to_work() -> None:
    def outcome(mask: tuple[int, ...], value: float) -> Outcome:
        return Outcome(
            allocation=mask, family="", tokens=(1,), text="", finished=True, margin=1.0, quality={"rougeL": value}
        )

    history = [outcome(tuple(range(6)), 0.5), outcome((0, 3), 0.7), outcome((1, 2), 0.1)]
    masks = candidate_masks([history, history], [0.1, 0.9, 0.2, 0.8, 0.3, 0.7], [3, 4], metric="rougeL", tolerance=0.0)
    assert {(), tuple(range(6)), (0, 3), (1, 3, 5), unified(6, 3)} <= set(masks)
    assert masks == sorted(masks, key=lambda mask: (len(mask), mask))


def test_the_ledger_runs_what_the_run_did_not(context: RunContext, quality_table: QualityTable) -> None:
    names, full = context.ids, tuple(range(LAYERS))
    rows = context.experiment.evaluations
    known = {(row.sequence, tuple(row.allocation.tolist())): row.agreement for row in rows.itertuples()}
    every = [full, (), (0, 2), (0, 4), (1, 3, 4)]
    quality_NM = quality_table.qualities(names, every)
    assert quality_NM[:, 0].tolist() == [1.0] * len(names)
    missing = 0
    for name, row in zip(names, quality_NM, strict=True):
        for mask, value in zip(every, row, strict=True):
            if (name, mask) in known:
                assert value == known[name, mask]
            else:
                missing += 1
                [(found, _)] = context.engine.generate([(context.examples[name].prompt.state, mask)])
                assert value == agreement(found.tokens, context.examples[name].tokens)
    assert missing


def test_the_best_static_mask_is_best_on_the_training_part(context: RunContext, training_set: TrainingSet) -> None:
    masks, quality_NM = pool(training_set)
    for budget in (LAYERS, 3, 0):
        controller = make("static", context, {"layers": budget})
        controller.fit(training_set)
        [kept] = set(controller.allocations([context.examples["s5"].prompt]))
        means = {mask: mean for mask, mean in zip(masks, quality_NM.mean(0), strict=True) if len(mask) <= budget}
        assert means[kept] == max(means.values())


def test_the_focal_loss_is_the_published_one() -> None:
    logits_NM, label_N = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    p_N = logits_NM.softmax(-1)[[0, 1], label_N]
    weight_M = torch.tensor([0.5, 1.0, 2.0])
    expected = -(weight_M[label_N] * (1 - p_N) ** 2 * p_N.log()).mean()
    assert torch.allclose(focal_loss(logits_NM, label_N, weight_M), expected)


def test_rare_classes_weigh_more() -> None:
    weight_M = class_weights(torch.tensor([0, 0, 0, 1]), 3)
    assert weight_M[2] == 0
    assert float(weight_M[1] / weight_M[0]) == pytest.approx((1 - 0.999**3) / (1 - 0.999))
    assert float(weight_M[:2].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["ridge", "router"])
def test_choosers_learn_what_can_be_told_from_the_prompt(
    name: str, context: RunContext, training_set: TrainingSet
) -> None:
    """Each sequence has one mask that serves it: on what was learned the choice is right."""
    controller = make(name, context, {"price": 0.0})
    quality_NM = np.eye(len(training_set.examples))
    controller.book = [(0,), (1,), (2,), (3,)]  # type: ignore[attr-defined]
    controller._learn(training_set, quality_NM, np.zeros(4))  # type: ignore[attr-defined]
    right = controller.choose([example.prompt for example in training_set.examples])  # type: ignore[attr-defined]
    assert right == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["ridge", "router"])
def test_a_high_price_buys_nothing(name: str, context: RunContext, training_set: TrainingSet) -> None:
    controller = make(name, context, {"price": 1000.0})
    controller.fit(training_set)
    assert set(controller.allocations([context.examples[one].prompt for one in context.ids])) == {()}


def test_ridge_on_one_sequence_predicts_a_constant(context: RunContext, training_set: TrainingSet) -> None:
    controller = make("ridge", context, {"price": 0.0})
    controller.book = [(0,), (1,)]  # type: ignore[attr-defined]
    controller._learn(replace(training_set, examples=training_set.examples[:1]), np.array([[0.2, 0.7]]), np.zeros(2))  # type: ignore[attr-defined]
    assert set(controller.allocations([context.examples[one].prompt for one in context.ids])) == {(1,)}
