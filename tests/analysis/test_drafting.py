"""Summaries of drafts: sums over sums, recomputed from made-up rows."""

import pandas as pd
import pytest
from plot_tables import write_drafts

import analysis
from analysis.drafting import bound_summary, draft_bounds, draft_summary, drafts


@pytest.fixture
def folder(run_writer, tmp_path):
    return run_writer(tmp_path / "run")


def test_a_run_without_drafts_has_none(folder) -> None:
    assert drafts(folder) is None and draft_bounds(folder) is None


def test_choices_are_summed_over_sequences(folder) -> None:
    write_drafts(folder, 8)
    rows = drafts(folder)
    found = draft_summary(rows, resamples=200).set_index("choice")
    assert list(found.index) == list(dict.fromkeys(rows["choice"]))
    for choice, part in rows.groupby("choice"):
        row, total = found.loc[choice], part[["tokens", "rounds", "drafted", "accepted", "expected_ms"]].sum()
        assert row["tokens_per_round"] == pytest.approx(total["tokens"] / total["rounds"])
        assert row["expected"] == pytest.approx(1000 * total["tokens"] / total["expected_ms"])
        # At the cost at which it pays, drafts and verifications take as long as plain tokens.
        assert row["pays_below"] * total["drafted"] + part["verify_ms"].sum() / 10 == pytest.approx(total["tokens"])
        assert row["pays_below_flat"] * total["drafted"] + total["rounds"] == pytest.approx(total["tokens"])
        ratios = part["accepted"] / part["rounds"]
        assert ratios.min() <= row["accepted_low"] <= row["accepted"] <= row["accepted_high"] <= ratios.max()
    assert found["oracle"].tolist() == [True] * 3 + [False] * 2
    assert (found["equal"] == 2).all() and (found["settled"] == 2).all()


def test_speeds_that_were_not_measured_are_missing(folder) -> None:
    write_drafts(folder, 8, measured=False)
    found = draft_summary(drafts(folder), resamples=0)
    assert found[["measured", "measured_speedup", "equal"]].isna().all(axis=None)
    assert found["expected"].notna().all() and found["accepted_low"].isna().all()


def test_bounds_are_summed_over_sequences(folder) -> None:
    write_drafts(folder, 8)
    found = bound_summary(draft_bounds(folder)).set_index("budget")
    assert found["sequences"].tolist() == [2, 2]
    assert found["first"].tolist() == pytest.approx([0, 0.2])
    assert found.loc[0, "accepted"] == pytest.approx(2 / 30)
    assert found["speedup"].tolist() == pytest.approx([1, 1.1])
    assert found["speedup_any"].tolist() == pytest.approx([2, 2])
    assert bound_summary(draft_bounds(folder).iloc[:0]).empty


def test_damage_is_named(folder) -> None:
    write_drafts(folder, 8)
    (folder / "drafts" / "drafts.parquet").write_bytes(b"no table")
    with pytest.raises(analysis.InputError, match="is damaged; delete it, and repeat 'oracle draft"):
        drafts(folder)


def test_a_table_without_a_column_is_damaged(folder, monkeypatch) -> None:
    write_drafts(folder, 8)
    monkeypatch.setattr("analysis.drafting.COLUMNS", ("choice", "no such column"))
    with pytest.raises(analysis.InputError, match="is damaged"):
        drafts(folder)


def test_the_masks_are_kept_as_lists(folder) -> None:
    write_drafts(folder, 8)
    rows = drafts(folder)
    assert rows.loc[rows["choice"] == "clasp", "allocation"].isna().all()
    assert pd.Series(rows["allocation"].dropna().map(list)).map(lambda mask: mask == [0, 1]).all()
