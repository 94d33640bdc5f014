import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from oracle.metrics import score_text
from oracle.metrics.rouge import lcs_length, words

NAMES = ("rouge1", "rouge2", "rougeL")
SCORER = RougeScorer(list(NAMES), use_stemmer=False)

# A small vocabulary, so that texts overlap, mixed with anything Unicode has.
_pieces = st.sampled_from(["the", "The", "cat", "sat", "on", "mat", "42", "don't", "é", "K", "\u2028", "...", ""])
_texts = st.one_of(
    st.lists(_pieces, max_size=25).map(" ".join),
    st.text(max_size=60),
    st.text(alphabet="aAbB1 .-\n\té\u0130", max_size=60),
)


def lcs_by_subsets(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """By definition: the longest subsequence of `left` that is one of `right` too."""

    def is_subsequence(part: tuple[str, ...]) -> bool:
        rest = iter(right)
        return all(token in rest for token in part)

    return max(
        size for size in range(len(left) + 1) for part in itertools.combinations(left, size) if is_subsequence(part)
    )


@given(_texts, st.lists(_texts, min_size=1, max_size=3))
def test_values_are_those_of_rouge_score(text: str, references: list[str]) -> None:
    expected = SCORER.score_multi(references, text)
    for name in NAMES:
        assert score_text(name, text, tuple(references)) == pytest.approx(expected[name].fmeasure, abs=1e-12)


@given(st.text(alphabet="abc", max_size=9), st.text(alphabet="abcd", max_size=12))
def test_lcs_is_the_longest_common_subsequence(left: str, right: str) -> None:
    assert lcs_length(tuple(left), tuple(right)) == lcs_by_subsets(tuple(left), tuple(right))


def test_lcs_beyond_a_machine_word() -> None:
    generator = random.Random(0)
    left = tuple(generator.choice("abcde") for _ in range(300))
    right = tuple(generator.choice("abcdef") for _ in range(500))
    row = [0] * (len(right) + 1)
    for token in left:
        above, row = row, [0]
        for j, other in enumerate(right):
            row.append(above[j] + 1 if token == other else max(above[j + 1], row[j]))
    assert lcs_length(left, right) == row[-1]


def test_words_are_ascii_letters_and_digits() -> None:
    assert words("Don't—STOP, café n°5!") == ("don", "t", "stop", "caf", "n", "5")


def test_known_values() -> None:
    reference = "The quick brown fox jumps over the lazy dog"
    output = "The quick brown dog jumps on the log."
    assert score_text("rouge1", output, (reference,)) == pytest.approx(2 * 6 / (8 + 9))
    assert score_text("rougeL", output, (reference,)) == pytest.approx(2 * 5 / (8 + 9))


@pytest.mark.parametrize("name", NAMES)
def test_empty_texts_score_zero(name: str) -> None:
    assert score_text(name, "", ("a b c",)) == 0.0
    assert score_text(name, "a b c", ("",)) == 0.0
    assert score_text(name, "", ("",)) == 0.0
