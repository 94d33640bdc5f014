"""One-shot tasks in text: one worked example, then a question. Generated from a seed, so that none can be memorised.

Sources: copying, reversal and key lookup are the usual probes of in-context learning (Olsson et al. 2022, arXiv
2209.11895, on induction); the cloze task is the next word of held-out text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["TASKS", "Question", "questions", "training_text"]

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))

CHOICES = 4
"""Choices per question: chance accuracy is 1/4."""

CLOZE_CONTEXT = 100
"""Characters of context before the word of a cloze question."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A multiple-choice question.

    Attributes:
        task: name of the task.
        prompt: a worked example and the question.
        choices: possible answers.
        answer: index of the right one.
    """

    task: str
    prompt: str
    choices: tuple[str, ...]
    answer: int


def _word(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(LETTERS, length, replace=False))


def _copy(rng: np.random.Generator) -> tuple[str, str]:
    word = _word(rng, 4)
    return word, word


def _reverse(rng: np.random.Generator) -> tuple[str, str]:
    word = _word(rng, 4)
    return word, word[::-1]


def _lookup(rng: np.random.Generator) -> tuple[str, str]:
    keys, values = _word(rng, 4), rng.integers(10, 100, 4)
    asked = int(rng.integers(4))
    pairs = " ".join(f"{key}{value}" for key, value in zip(keys, values, strict=True))
    return f"{pairs} {keys[asked]}", str(values[asked])


def _add(rng: np.random.Generator) -> tuple[str, str]:
    left, right = rng.integers(0, 10, 2)
    return f"{left}+{right}", str(left + right)


GENERATORS: dict[str, Callable[[np.random.Generator], tuple[str, str]]] = {
    "copy": _copy,
    "reverse": _reverse,
    "lookup": _lookup,
    "add": _add,
}

TASKS = (*GENERATORS, "cloze")


def _line(name: str, pair: tuple[str, str]) -> str:
    return f"{name}: {pair[0]} = {pair[1]}\n"


def training_text(rng: np.random.Generator, characters: int) -> str:
    """Consecutive examples of one task, at least `characters` long."""
    name = str(rng.choice(list(GENERATORS)))
    text = ""
    while len(text) < characters:
        text += _line(name, GENERATORS[name](rng))
    return text


def questions(held_out: str, count: int, seed: int) -> list[Question]:
    """One-shot questions of all tasks, with answers to other questions as wrong choices.

    Args:
        held_out: text for the cloze task.
        count: questions per task.
        seed: seed of all choices; its streams differ from those of training.
    """
    rng = np.random.default_rng([seed, 2**31])
    asked = {
        name: [
            (f"{_line(name, make(rng))}{name}: {question} = ", f"{answer}\n")
            for question, answer in (make(rng) for _ in range(count))
        ]
        for name, make in GENERATORS.items()
    }
    words = [word for word in re.finditer(r"(?<= )[a-z]{4,}(?= )", held_out) if word.start() >= CLOZE_CONTEXT]
    places = rng.permutation(len(words))[:count]
    spans = [(words[place].start(), f"{words[place].group()} ") for place in places]
    asked["cloze"] = [(held_out[start - CLOZE_CONTEXT : start], word) for start, word in spans]
    return [
        _with_choices(name, pair, [answer for _, answer in pairs], rng)
        for name, pairs in asked.items()
        for pair in pairs
    ]


def _with_choices(task: str, pair: tuple[str, str], others: list[str], rng: np.random.Generator) -> Question:
    """A question whose wrong choices are as long as the right one if possible, else the nearest in length."""
    prompt, right = pair
    wrong = sorted(set(others) - {right}, key=lambda other: abs(len(other) - len(right)))
    alike = [other for other in wrong if len(other) == len(right)]
    pool = alike if len(alike) >= CHOICES - 1 else wrong[: CHOICES - 1]
    choices = [right, *rng.permutation(pool)[: CHOICES - 1].tolist()]
    order = rng.permutation(len(choices)).tolist()
    return Question(task=task, prompt=prompt, choices=tuple(choices[place] for place in order), answer=order.index(0))
