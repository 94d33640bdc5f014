"""The bundled sequences keep their form, and their datasheet tells the truth about them."""

import ast
import json
import operator
import re
import unicodedata
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from oracle.metrics import answer_in, score_text
from oracle.models import LanguageModel
from oracle.sequences import Columns, read_data

DATA = Path(__file__).parents[2] / "data"
TASKS = (
    "facts",
    "multiple_choice",
    "arithmetic",
    "summarise",
    "translate",
    "rewrite",
    "classify",
    "extract",
)
FIELDS = ["id", "task", "prompt", "references"]
CHOICE_FIELDS = [*FIELDS, "choices", "answer"]
# The limits that the datasheet promises, in words separated by white space.
MAX_PROMPT_WORDS = 60
MAX_REFERENCE_WORDS = 20

Row = dict[str, Any]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def words(text: str) -> int:
    return len(text.split())


def same_for_a_reader(text: str) -> str:
    """`text` without case, punctuation and spacing: what two duplicates have in common."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def calculate(expression: str) -> float:
    """The value of a sum such as `(2 + 2) x 5`, with `x` for times; integers and `+ - x /` only."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Constant(value=int(number)):
                return number
        raise AssertionError(f"not a sum of integers: {expression!r}")

    return value(ast.parse(expression.replace("x", "*").strip(), mode="eval").body)


@pytest.fixture(scope="module")
def text() -> str:
    return (DATA / "instruct.jsonl").read_bytes().decode("utf-8")


@pytest.fixture(scope="module")
def rows(text: str) -> list[Row]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def multiple_choice(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == "multiple_choice"]


def test_the_file_is_clean_text(text: str) -> None:
    assert text.endswith("}\n") and not text.endswith("\n\n")
    assert "\r" not in text and "\ufeff" not in text and "\t" not in text
    assert not [line for line in text.split("\n") if line != line.strip()]
    assert unicodedata.is_normalized("NFC", text)


def test_counts(rows: list[Row]) -> None:
    counts = Counter(row["task"] for row in rows)
    assert set(counts) == set(TASKS)
    assert len(rows) >= 200
    assert min(counts.values()) >= 25


def test_every_prefix_is_balanced_over_tasks(rows: list[Row]) -> None:
    assert [row["task"] for row in rows] == list(TASKS) * (len(rows) // len(TASKS))


def test_field_names_order_and_types(rows: list[Row]) -> None:
    for row in rows:
        expected = CHOICE_FIELDS if row["task"] == "multiple_choice" else FIELDS
        assert list(row) == expected, row["id"]
        assert all(type(row[name]) is str for name in ("id", "task", "prompt")), row["id"]
        for name in expected[3:5]:
            assert type(row[name]) is list and all(type(item) is str for item in row[name]), row["id"]
        assert type(row.get("answer", 0)) is int, row["id"]


def test_ids_are_the_task_and_a_running_number(rows: list[Row]) -> None:
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row["task"]] += 1
        assert row["id"] == f"{row['task']}-{seen[row['task']]:03d}"
    assert len({row["id"] for row in rows}) == len(rows)


def test_prompts_are_distinct_unpadded_and_short(rows: list[Row]) -> None:
    copies = Counter(same_for_a_reader(row["prompt"]) for row in rows)
    assert not [prompt for prompt, count in copies.items() if count > 1]
    for row in rows:
        assert row["prompt"] == row["prompt"].strip(), row["id"]
        assert "  " not in row["prompt"] and " \n" not in row["prompt"], row["id"]
        assert 0 < words(row["prompt"]) <= MAX_PROMPT_WORDS, row["id"]


def test_references_are_distinct_unpadded_and_short(rows: list[Row]) -> None:
    for row in rows:
        references = row["references"]
        assert 1 <= len(references) <= 5, row["id"]
        assert len({same_for_a_reader(reference) for reference in references}) == len(references), row["id"]
        for reference in references:
            assert same_for_a_reader(reference), row["id"]
            assert " ".join(reference.split()) == reference, row["id"]
            assert 0 < words(reference) <= MAX_REFERENCE_WORDS, row["id"]


def test_choices_are_sentences_about_the_options_of_the_prompt(multiple_choice: list[Row]) -> None:
    for row in multiple_choice:
        choices, answer = row["choices"], row["answer"]
        assert len(choices) == 4 == len({same_for_a_reader(choice) for choice in choices}), row["id"]
        assert 0 <= answer < 4, row["id"]
        options = [line for line in row["prompt"].split("\n") if re.match(r"[A-D]\) ", line)]
        assert [line[0] for line in options] == list("ABCD"), row["id"]
        assert [choice.rstrip(".") for choice in choices] == [f"The answer is {one.rstrip('.')}" for one in options]
        assert row["references"] == [options[answer], choices[answer]], row["id"]


def test_no_multiple_choice_answer_is_a_letter_alone(multiple_choice: list[Row]) -> None:
    """In scope `decode` the first token is the full model's, so a letter would not depend on the allocation."""
    for row in multiple_choice:
        assert not any(len(text.split()) < 2 for text in (*row["references"], *row["choices"])), row["id"]
        assert len({choice.split(") ")[0][:-1] for choice in row["choices"]}) == 1, row["id"]
        assert "the letter of" not in row["prompt"], row["id"]


def test_arithmetic_is_scored_by_its_number_with_the_documented_options(rows: list[Row]) -> None:
    """`--tasks arithmetic --extract number --reference-column references.0 --criterion exact_match`."""
    columns = Columns(references=("references.0",))
    read = read_data("instruct", tasks=("arithmetic",), columns=columns, extract="number")
    assert len(read.sequences) == 28 and not read.decisions
    known = {row["id"]: row["references"] for row in rows}
    for one in read.sequences:
        sum_of, number = known[one.id][-1].split(" = ")
        assert one.references == (number,) and calculate(sum_of) == int(number), one.id
        for text, right in ((f"{sum_of} = {number}.", 1.0), (f"It is {int(number) + 1}.", 0.0), (f"{sum_of} =", 0.0)):
            assert score_text("exact_match", answer_in(text, "number"), one.references) == right, (one.id, text)


def test_other_numbers_in_references_are_said(rows: list[Row]) -> None:
    """With all references, 4 would be right where one says `There are 24 rolls in 4 bags.`"""
    [decision] = read_data("instruct", tasks=("arithmetic",), extract="number").decisions
    assert decision["rows"] == 3 and decision["first"] == "arithmetic-003: '24', '4'"
    assert "each counts as right; compare with one reference" in decision["rule"]


@pytest.mark.embedded
def test_choices_begin_alike_and_references_are_of_several_tokens(
    embedded_model: LanguageModel, multiple_choice: list[Row]
) -> None:
    """What tells the choices apart comes after the first token, which in scope `decode` is the full model's."""
    tokenizer = embedded_model.tokenizer
    for row in multiple_choice:
        assert len({tuple(tokenizer(choice)["input_ids"][:3]) for choice in row["choices"]}) == 1, row["id"]
        assert all(len(tokenizer(text)["input_ids"]) >= 3 for text in row["references"]), row["id"]


def test_right_answers_are_spread_over_the_positions(multiple_choice: list[Row]) -> None:
    counts = Counter(row["answer"] for row in multiple_choice)
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) <= 0.4 * len(multiple_choice)


def test_arithmetic_references_agree_on_a_number_that_is_right(rows: list[Row]) -> None:
    for row in (row for row in rows if row["task"] == "arithmetic"):
        number = row["references"][0]
        assert re.fullmatch(r"-?\d+", number), row["id"]
        for reference in row["references"]:
            assert number in re.findall(r"-?\d+", reference), row["id"]
        left, right = row["references"][-1].split(" = ")
        assert right == number and calculate(left) == int(number), row["id"]


def test_the_first_reference_of_a_classification_is_a_label_from_the_prompt(rows: list[Row]) -> None:
    for row in (row for row in rows if row["task"] == "classify"):
        assert row["references"][0].casefold() in row["prompt"].casefold(), row["id"]


def test_the_datasheet_table_is_what_is_measured(rows: list[Row]) -> None:
    def measure(name: str, part: list[Row]) -> list[str]:
        prompts = [words(row["prompt"]) for row in part]
        references = [words(reference) for row in part for reference in row["references"]]
        lengths = [f"{mean(prompts):.1f}", max(prompts), f"{mean(references):.1f}", max(references)]
        return [str(cell) for cell in (name, len(part), len(references), *lengths)]

    measured = [measure(task, [row for row in rows if row["task"] == task]) for task in TASKS]
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row for row in cells if row[0] in (*TASKS, "all")] == [*measured, measure("all", rows)]
