"""The choice that an allocation picks, by each score, against sums of log-probabilities from plain forwards."""

import numpy as np
import pytest
import torch
from tiny import tiny_llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.evaluate import Evaluator
from oracle.engine.prompts import encode_choice
from oracle.metrics import CHOICE_SCORES, ChoiceScore
from oracle.models import LanguageModel
from oracle.types import Message, Proposal, Sequence

CHOICES = ("a", "not at all", "Zürich über alles")
SEQUENCE = Sequence(id="s", prompt="Pick one:", choices=CHOICES, answer=1)
EVERY_LAYER = tuple(range(5))
TEMPLATE = "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"


def harness_ids(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of context and continuation as lm-evaluation-harness splits them: of both as one text."""
    before = tokenizer(context)["input_ids"]
    return before, tokenizer(context + continuation)["input_ids"][len(before) :]


def harness_sums(model: LanguageModel) -> list[float]:
    """Total log-likelihood of each choice after the prompt, with the harness's delimiter, a space."""
    sums = []
    for choice in CHOICES:
        prompt, ids = harness_ids(model.tokenizer, SEQUENCE.prompt, f" {choice}")
        with torch.inference_mode():
            logits = model.network(torch.tensor([prompt + ids])).logits[0]
        scores = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        sums.append(float(scores.gather(1, torch.tensor(ids)[:, None]).sum()))
    return sums


@pytest.mark.parametrize("score", CHOICE_SCORES)
def test_scores_are_those_of_the_harness(
    tiny_model: LanguageModel, score: ChoiceScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {
        "acc": [1, 1, 1],
        "acc_norm": [1, 10, 17],  # characters, without the delimiter
        "acc_bytes": [1, 10, 19],  # two letters of two bytes each
        "acc_tokens": [2, 11, 20],  # a token per byte, with the delimiter's
    }[score]
    expected = np.array(harness_sums(tiny_model)) / lengths
    config = SearchConfig(
        criterion="choice_accuracy",
        choice_score=score,
        scope="sequence",
        max_new_tokens=2,
    )
    evaluator = Evaluator(Engine(tiny_model, config), metrics=config.asked_metrics, shuffled={"s": SEQUENCE})
    compared: list[list[float]] = []
    choice_of = evaluator._choice
    monkeypatch.setattr(evaluator, "_choice", lambda *given: compared.append(choice_of(*given)) or compared[-1])
    [[outcome]] = evaluator.evaluate([(SEQUENCE, [Proposal(allocation=EVERY_LAYER, family="full")])])
    assert [value for [value] in compared] == pytest.approx(expected, rel=1e-5)
    assert outcome.quality["choice"] == int(np.argmax(expected))
    assert outcome.quality["choice_accuracy"] == float(np.argmax(expected) == SEQUENCE.answer)


def test_long_choices_lose_by_the_sum_alone(tiny_model: LanguageModel) -> None:
    sums = np.array(harness_sums(tiny_model))
    assert int(np.argmax(sums)) == 0, "the shortest has the highest total"
    assert int(np.argmax(sums / [1, 10, 17])) != 0, "so the scores can be told apart here"


@pytest.mark.parametrize(
    ("prompt", "choice", "delimiter", "between"),
    [
        ("Q:", "Rome", None, " "),
        ("Q: ", "Rome", None, ""),
        ("Q:", " Rome", None, ""),
        ("Q:", "Rome", "", ""),
        ("Q:", "Rome", "\n", "\n"),
    ],
)
def test_a_space_stands_between_plain_prompt_and_choice(
    tiny_model: LanguageModel, prompt: str, choice: str, delimiter: str | None, between: str
) -> None:
    config = SearchConfig(target_delimiter=delimiter)
    ids = encode_choice(tiny_model.tokenizer, Sequence(id="s", prompt=prompt), choice, config)
    assert tiny_model.tokenizer.decode(ids) == between + choice


def test_after_a_template_only_a_begun_turn_gets_a_space(tiny_model: LanguageModel, tmp_path) -> None:
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    config = SearchConfig(chat_template=str(tmp_path / "t.jinja"))
    asked = Sequence(id="s", prompt="Q?")
    begun = Sequence(
        id="s", prompt="Q?", messages=(Message(role="user", content="Q?"), Message(role="assistant", content="It is"))
    )
    found = [
        tiny_model.tokenizer.decode(encode_choice(tiny_model.tokenizer, one, "Rome", config)) for one in (asked, begun)
    ]
    assert found == ["Rome", " Rome"]
    assert encode_choice(tiny_model.tokenizer, asked, "", config) == []


def test_tokens_are_those_behind_the_prompt_not_of_a_text_of_its_own(tmp_path) -> None:
    """Of a tokenizer that marks the beginning of a text, as SentencePiece's do."""
    symbols = ["▁", *(chr(n) for n in range(33, 127))]
    library = Tokenizer(models.BPE(vocab={symbol: n for n, symbol in enumerate(symbols)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library)
    model = LanguageModel(name="marks", network=tiny_llama(), tokenizer=tokenizer)
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    plain, templated = SearchConfig(), SearchConfig(chat_template=str(tmp_path / "t.jinja"))
    sequence = Sequence(id="s", prompt="Q:")
    assert encode_choice(model.tokenizer, sequence, "Rome", plain) == harness_ids(tokenizer, "Q:", " Rome")[1]
    behind = tokenizer.convert_ids_to_tokens(encode_choice(model.tokenizer, sequence, "Rome", templated))
    assert (behind, tokenizer.tokenize("Rome")) == (["R", "o", "m", "e"], ["▁", "R", "o", "m", "e"])
