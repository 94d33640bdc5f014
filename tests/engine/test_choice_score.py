"""The choice that an allocation picks, by each score, against sums of log-probabilities from plain forwards."""

import numpy as np
import pytest
import torch

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.evaluate import Evaluator
from oracle.metrics import CHOICE_SCORES
from oracle.models import LanguageModel
from oracle.types import Proposal, Sequence

CHOICES = ("a", "not at all", "Zürich über alles")
SEQUENCE = Sequence(id="s", prompt="Pick one:", choices=CHOICES, answer=1)
EVERY_LAYER = tuple(range(5))


def plain_sums(model: LanguageModel) -> list[float]:
    """Total log-likelihood of each choice after the prompt, as lm-evaluation-harness sums it."""
    prompt = model.tokenizer(SEQUENCE.prompt)["input_ids"]
    sums = []
    for choice in CHOICES:
        ids = model.tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model.network(torch.tensor([prompt + ids])).logits[0]
        scores = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        sums.append(float(scores.gather(1, torch.tensor(ids)[:, None]).sum()))
    return sums


@pytest.mark.parametrize("score", CHOICE_SCORES)
def test_the_choice_is_that_of_the_harness(tiny_model: LanguageModel, score: str) -> None:
    tokens = [len(tiny_model.tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in CHOICES]
    lengths = {
        "sum": [1, 1, 1],  # acc
        "per-character": [1, 10, 17],  # acc_norm
        "per-byte": [1, 10, 19],  # acc_bytes
        "per-token": tokens,
    }[score]
    expected = int(np.argmax(np.array(plain_sums(tiny_model)) / lengths))
    config = SearchConfig(
        criterion="choice_accuracy",
        choice_score=score,
        scope="sequence",
        max_new_tokens=2,  # type: ignore[arg-type]
    )
    evaluator = Evaluator(Engine(tiny_model, config), metrics=config.model_metrics, shuffled={"s": SEQUENCE})
    [[outcome]] = evaluator.evaluate([(SEQUENCE, [Proposal(allocation=EVERY_LAYER, family="full")])])
    assert outcome.quality["choice"] == expected
    assert outcome.quality["choice_accuracy"] == float(expected == SEQUENCE.answer)


def test_long_choices_lose_by_the_sum_alone(tiny_model: LanguageModel) -> None:
    sums = np.array(plain_sums(tiny_model))
    assert int(np.argmax(sums)) == 0, "the shortest has the highest total"
    assert int(np.argmax(sums / [1, 10, 17])) != 0, "so the scores can be told apart here"
