"""Right answers that the minimal budget loses under a metric of overlap."""

import dataclasses

import pandas as pd
import pytest

from analysis.experiment import Experiment
from analysis.per_sequence.lost_answers import definite_answer, lost_answers
from analysis.report.facts import facts
from analysis.report.parts import parts_of
from oracle.metrics import score_texts

REFERENCES = ["17", "There are now 17 people on the bus.", "20 - 7 + 4 = 17"]
RIGHT = "The bus now carries 17, which we get by adding and subtracting."
WRONG = "20 - 7 + 4"
"""Three of the four words of the last reference, in order: F = 2 x 3 / 7 = 0.857."""


@pytest.mark.parametrize(
    ("references", "answer"),
    [
        (REFERENCES, "17"),
        (["The answer is B) Madrid.", "B) Madrid"], "B) Madrid"),
        (["Jane Austen wrote it.", "jane austen"], "jane austen"),
        (["17"], ""),
        (["12, 30, 4", "12, 30 and 4 and 5"], ""),
        (["17", "There are 170 people."], ""),
        (["1.5", "It is 1 or 5."], ""),
        (["да", "Ответ: да."], "да"),
        (["?", "!"], ""),
    ],
)
def test_an_answer_is_definite_if_all_references_have_its_words_together(references: list[str], answer: str) -> None:
    assert definite_answer(references) == answer


def experiment(outputs: dict[str, list[tuple[int, str]]], references: list[str] = REFERENCES, **more) -> Experiment:
    """Sequences with outputs at numbers of layers, of which the first is the full model's."""
    rows = [
        {
            "sequence": name,
            "number": number,
            "family": "random" if number else "full",
            "allocation": list(range(cost)),
            "cost": cost,
            "tokens": [1, 2, 3],
            "text": text,
            **score_texts(text, tuple(references)),
        }
        for name, texts in outputs.items()
        for number, (cost, text) in enumerate(texts)
    ]
    table = pd.DataFrame(
        {
            "sequence": list(outputs),
            "task": "sums",
            "prompt": "How many?",
            "references": [references] * len(outputs),
            "choices": [[]] * len(outputs),
            "answer": pd.array([None] * len(outputs), dtype="Int64"),
            "prompt_tokens": 9,
        }
    )
    settings = {"metric": "rougeL", "kind": "text", "tolerance": 0.0, "floor": 0.0, "layers": 4}
    settings |= {"unit": "layer", "scope": "decode", "seed": 0}
    return Experiment(evaluations=pd.DataFrame(rows), sequences=table, **{**settings, **more})


OUTPUTS = {
    "loses": [(4, RIGHT), (1, WRONG)],
    "keeps": [(4, RIGHT), (1, "17 people")],
    "never had it": [(4, "The bus has 16 people on it."), (1, WRONG)],
}


def test_a_wrong_answer_in_the_references_words_beats_a_right_sentence() -> None:
    found = lost_answers(experiment(OUTPUTS)).set_index("sequence")
    assert found["lost"].to_dict() == {"loses": True, "keeps": False}
    pair = found.loc["loses"]
    assert pair["quality"] > pair["full_quality"] and (pair["answer"], pair["text"]) == ("17", WRONG)


def test_the_report_shows_the_pair_and_what_knows_the_answer() -> None:
    [part] = parts_of(experiment(OUTPUTS), bootstrap=0, permutations=0)
    [fact] = [fact for fact in facts(part) if fact.title == "Right answers lost"]
    assert fact.value == "1 of 2"
    for text in (f"“{RIGHT}” scores 0.", f"“{WRONG}” with 25.0 % of the layers scores 0.857", "exact_match", "“17”"):
        assert text in fact.sentence


def test_nothing_is_said_where_answers_are_compared_or_not_definite() -> None:
    extracted = dataclasses.replace(experiment(OUTPUTS), provenance={"config": {"extract": "number"}})
    for one in (extracted, experiment(OUTPUTS, metric="exact_match"), experiment(OUTPUTS, references=["a b", "b c"])):
        assert lost_answers(one).empty
        assert "Right answers lost" not in [fact.title for fact in facts(parts_of(one, bootstrap=0, permutations=0)[0])]
