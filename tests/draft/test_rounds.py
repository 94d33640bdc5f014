"""Rounds of draft and verification: played, bounded, and compared with brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.draft.rounds import Length, Times, break_even, fewest_rounds, least_ms, play

ALONE = {"attention": (0.4, 0.8), "mlp": (0.7, 1.3)}
TIMES = Times(layers=(1.0, 2.0), overhead=3.0, verify=(10.0, 11.0, 11.0, 14.0), **ALONE)


def test_a_round_is_a_draft_and_a_verification() -> None:
    length = Length(tokens=8, limit=8, ended=False)
    played = play([2, 0, 0, 1, 0, 0, 0], length, 3)
    # From token 1: 3 drafted, 2 accepted, one more: 4 known. Then 1 of 3. Then two tokens are left, of which one may be
    # drafted, and at last none.
    assert played.known_R.tolist() == [1, 4, 6, 7]
    assert played.drafted_R.tolist() == [3, 3, 1, 0]
    assert played.accepted_R.tolist() == [2, 1, 0, 0]
    assert played.ms(5.0, TIMES) == 7 * 5.0 + 14 + 14 + 11 + 10
    assert played.ms([1.0, 9, 9, 2.0, 9, 4.0, 9], TIMES) == 3 * 1 + 3 * 2 + 4 + 14 + 14 + 11 + 10


def test_plain_decoding_takes_a_pass_per_token() -> None:
    played = play([3] * 5, Length(tokens=6, limit=6, ended=False), 0)
    assert played.ms(7.0, TIMES) == 5 * 10.0 and played.accepted_R.sum() == 0
    assert break_even([played], [1.0, 1.0]) is None


def test_a_draft_that_ends_the_output_ends_itself() -> None:
    played = play([3, 2, 1], Length(tokens=4, limit=20, ended=True), 3)
    assert (played.drafted_R.tolist(), played.accepted_R.tolist()) == ([3], [3])
    assert play([1, 2, 1], Length(tokens=4, limit=20, ended=True), 3).drafted_R.tolist() == [3, 1]


def test_drafting_pays_below_its_cost() -> None:
    length = Length(tokens=9, limit=9, ended=False)
    played, verify = play([2] * 8, length, 2), [1.0, 1.2, 1.5]
    ratio = break_even([played], verify)
    spent = ratio * played.drafted_R.sum() + sum(verify[drafted] for drafted in played.drafted_R)
    assert spent == pytest.approx(8)


def test_the_cost_of_a_mask_is_that_of_its_parts() -> None:
    def draft(*runs: int) -> float:
        return TIMES.draft(np.array(runs, dtype=bool))

    assert draft(1, 1, 1, 1) == 6.0
    assert draft(0, 0, 0, 0) == 3.0
    assert draft(1, 0, 0, 1) == pytest.approx(3 + 0.4 + 1.3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.floats(0, 12), st.booleans())
def test_bounds_are_what_brute_force_finds(lengths: list[int], draft_ms: float, ended: bool) -> None:
    X = len(lengths)
    lengths_MX = np.array([[min(one, X - place) for place, one in enumerate(lengths)]], dtype=np.int16)
    length = Length(tokens=X + 1, limit=X + 1 + 9 * ended, ended=ended)
    best, fewest = np.inf, X
    # Every choice of how much each round drafts, and accepts of it.
    for wanted in product(range(4), repeat=X):
        place, ms, rounds = 0, 0.0, 0
        while place < X:
            drafted = min(wanted[place], length.limit - place - 2)
            accepted = min(int(lengths_MX[0, place]), drafted)
            ms, rounds = ms + drafted * draft_ms + TIMES.verify[drafted], rounds + 1
            place += accepted + 1
        best, fewest = min(best, ms), min(fewest, rounds)
    [found] = least_ms(lengths_MX, np.array([draft_ms]), TIMES)
    assert found == pytest.approx(best)
    assert fewest_rounds(lengths_MX)[0] == fewest
    for draft in range(4):
        assert found <= play(lengths_MX[0], length, draft).ms(draft_ms, TIMES) + 1e-9
