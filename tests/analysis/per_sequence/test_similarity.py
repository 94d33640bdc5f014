"""Means of similarity over tokens and sequences: against loops."""

import numpy as np
import pandas as pd
import pytest

from analysis import InputError, similarity_by_budget, similarity_by_sequence, similarity_by_token
from analysis.per_sequence import similarity
from analysis.per_sequence.similarity import VALUES

LENGTHS = {"a": 4, "b": 1, "c": 7}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = [
        {
            "sequence": sequence,
            "kind": kind,
            "budget": budget,
            "token": token,
            "cosine": rng.uniform(-1, 1),
            "relative_error": rng.uniform(0, 3),
            "same_token": bool(rng.random() < 0.5),
        }
        for sequence, length in LENGTHS.items()
        for kind in ("skip", "exit")
        for budget in (0, 2, 4)
        for token in range(1, 1 + length)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def picked(table, **wanted):
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def test_every_sequence_counts_once(table):
    found = similarity_by_budget(table, bootstrap=200)
    assert len(found) == 6
    for row in found.to_dict("records"):
        for name in VALUES:
            means = [picked(table, sequence=s, kind=row["kind"], budget=row["budget"])[name].mean() for s in LENGTHS]
            assert row[name] == pytest.approx(np.mean(means))
            ends = np.array([min(means), row[f"{name}_low"], row[name], row[f"{name}_high"], max(means)])
            assert (np.diff(ends) >= -1e-12).all()
        assert row["sequences"] == 3
    assert similarity_by_budget(table, bootstrap=0)["cosine_low"].isna().all()


def test_sequences_are_means_over_their_tokens(table):
    found = similarity_by_sequence(table)
    assert len(found) == 18
    for row in found.to_dict("records"):
        mine = picked(table, sequence=row["sequence"], kind=row["kind"], budget=row["budget"])
        assert row["tokens"] == len(mine) == LENGTHS[row["sequence"]]
        assert row["relative_error"] == pytest.approx(mine["relative_error"].mean())


def test_positions_are_means_over_what_is_so_long(table):
    found = similarity_by_token(table)
    for row in found.to_dict("records"):
        mine = picked(table, token=row["token"], kind=row["kind"], budget=row["budget"])
        assert row["sequences"] == len(mine) == sum(length >= row["token"] for length in LENGTHS.values())
        assert row["same_token"] == pytest.approx(mine["same_token"].mean())
    assert found["token"].max() == 7


def test_a_run_stands_for_its_table(table, stored_run, monkeypatch):
    asked = []
    monkeypatch.setattr(similarity, "similarity", lambda run: asked.append(run) or table)
    for function in (similarity_by_sequence, similarity_by_token):
        pd.testing.assert_frame_equal(function(stored_run), function(table))
    assert asked == [stored_run] * 2
    monkeypatch.setattr(similarity, "similarity", lambda run: None)
    with pytest.raises(InputError, match=r"^a measured run is required: run 'oracle measure .*' first$"):
        similarity_by_budget(stored_run)
